"""Which node is asked for what: the state machine alone, without threads or time."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from query.gathering import Attempt, Gathering

THREE = {0: ["a", "b"], 1: ["a", "c"], 2: ["b", "c"]}


def test_each_node_is_asked_once_for_all_of_its_partitions() -> None:
    attempts = Gathering(THREE).start()
    assert [(one.node, one.partitions, one.alone) for one in attempts] == [
        ("a", (0, 1), False),
        ("b", (2,), False),
    ]


def test_what_a_failed_node_was_asked_for_goes_to_the_next_ones() -> None:
    gathering = Gathering(THREE)
    first, second = gathering.start()
    assert gathering.answered(second)
    again = gathering.failed(first)
    assert [(one.node, one.partitions, one.alone) for one in again] == [("b", (0,), True), ("c", (1,), True)]
    assert all(gathering.answered(one) for one in again)
    assert gathering.done


def test_of_a_hedge_and_its_original_only_the_first_counts() -> None:
    gathering = Gathering(THREE)
    first, second = gathering.start()
    hedges = gathering.hedged(first)
    assert [(one.node, one.partitions) for one in hedges] == [("b", (0,)), ("c", (1,))]
    assert gathering.answered(hedges[0])
    assert not gathering.is_needed(first)
    assert not gathering.answered(first), "partition 0 would be counted twice"
    assert gathering.answered(hedges[1])
    assert gathering.answered(second)
    assert gathering.done


def test_a_node_whose_answer_came_to_nothing_is_asked_again_for_what_nobody_else_has() -> None:
    gathering = Gathering({0: ["slow", "dead", "gone"], 1: ["slow", "dead", "gone"], 2: ["slow", "quick"]})
    (slow,) = gathering.start()
    dead, quick = gathering.hedged(slow)
    assert gathering.failed(dead) == []
    assert gathering.answered(quick)
    # The slow one's answer has partition 2 in it, which is there already.
    (gone,) = gathering.stuck_asked_elsewhere()
    assert (gone.node, gone.partitions) == ("gone", (0, 1))
    (again,) = gathering.failed(gone)
    assert (again.node, again.partitions) == ("slow", (0, 1))
    assert not gathering.answered(slow)
    assert gathering.answered(again)
    assert gathering.done


def test_a_partition_without_a_second_node_is_not_hedged() -> None:
    gathering = Gathering({0: ["a", "b"], 1: ["a"]})
    (attempt,) = gathering.start()
    assert attempt.alone
    assert gathering.hedged(attempt) == []


def test_a_partition_that_nobody_has_is_stuck_until_everybody_is_asked_again() -> None:
    gathering = Gathering({0: ["a"], 1: []})
    (attempt,) = gathering.start()
    assert gathering.stuck() == [1]
    assert gathering.failed(attempt) == []
    assert gathering.stuck() == [0, 1]
    assert [one.node for one in gathering.again()] == ["a"]


@settings(deadline=None, max_examples=300)
@given(
    st.dictionaries(
        st.integers(0, 7), st.lists(st.sampled_from("abcde"), min_size=1, max_size=3, unique=True), min_size=1
    ),
    st.integers(0, 2**32),
)
def test_whatever_happens_each_partition_is_kept_exactly_once(candidates: dict[int, list[str]], seed: int) -> None:
    rng = random.Random(seed)
    gathering = Gathering(candidates)
    running: list[Attempt] = gathering.start()
    hedged: set[int] = set()
    kept: list[int] = []
    for _ in range(200):
        if gathering.done:
            break
        if not running:
            running = gathering.again()
        attempt = running.pop(rng.randrange(len(running)))
        match rng.randrange(3):
            case 0 if attempt.number not in hedged:
                hedged.add(attempt.number)
                running += [attempt, *gathering.hedged(attempt)]
            case 1:
                running += gathering.failed(attempt)
            case _:
                if gathering.answered(attempt):
                    kept += attempt.partitions
                running += gathering.stuck_asked_elsewhere()
    assert len(kept) == len(set(kept)), "a partition was kept twice"
    assert not gathering.done or sorted(kept) == sorted(candidates)
