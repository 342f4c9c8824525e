"""Placement: distinct nodes, bounded loads, few moves, and the same everywhere."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from common import placement
from common.kernels.hashing import jump_hash
from common.placement import arrivals, assign, capacity
from tests.oracles.placement import assign_oracle

UNBOUNDED = 1 << 40


@st.composite
def clusters(draw: st.DrawFn) -> tuple[int, int, list[int], int]:
    """(partitions, replicas, members, ordinals ever given), small enough for the oracle."""
    n_ordinals = draw(st.integers(1, 14))
    members = draw(st.sets(st.integers(0, n_ordinals - 1)))
    return draw(st.integers(1, 40)), draw(st.integers(1, 4)), sorted(members), n_ordinals


def loads_of(placed: NDArray[np.int32], members: list[int]) -> NDArray[np.int64]:
    return np.bincount(placed[placed >= 0], minlength=max(members) + 1)[members]


def limit_of(n_partitions: int, n_replicas: int, members: list[int]) -> int:
    return capacity(n_partitions, n_replicas, len(members)) if members else 0


@given(clusters())
def test_the_slow_obvious_way_gives_the_same(cluster: tuple[int, int, list[int], int]) -> None:
    n_partitions, n_replicas, members, n_ordinals = cluster
    placed = assign(*cluster)
    assert placed.dtype == np.int32
    limit = limit_of(n_partitions, n_replicas, members)
    assert placed.tolist() == assign_oracle(n_partitions, n_replicas, set(members), n_ordinals, limit)


def test_the_slow_obvious_way_gives_the_same_for_a_large_cluster() -> None:
    members = sorted(random.Random(5).sample(range(40), 25))
    limit = capacity(1024, 3, 25)
    assert assign(1024, 3, members, 40).tolist() == assign_oracle(1024, 3, set(members), 40, limit)


@given(clusters())
def test_replicas_are_on_distinct_members_and_as_many_as_there_can_be(
    cluster: tuple[int, int, list[int], int],
) -> None:
    _, n_replicas, members, _ = cluster
    n = min(n_replicas, len(members))
    for row in assign(*cluster).tolist():
        assert len(set(row[:n])) == n
        assert set(row[:n]) <= set(members)
        assert row[n:] == [-1] * (n_replicas - n)


@given(clusters())
def test_no_member_holds_more_than_its_capacity(cluster: tuple[int, int, list[int], int]) -> None:
    n_partitions, n_replicas, members, _ = cluster
    if members:
        assert loads_of(assign(*cluster), members).max() <= limit_of(n_partitions, n_replicas, members)


@given(st.integers(1, 60), st.integers(1, 4), st.integers(1, 20))
def test_loads_differ_by_at_most_one_while_nobody_has_left(
    n_partitions: int, n_replicas: int, n_nodes: int
) -> None:
    members = list(range(n_nodes))
    assert np.ptp(loads_of(assign(n_partitions, n_replicas, members, n_nodes), members)) <= 1


@given(st.integers(1, 60), st.integers(1, 4), st.integers(1, 20))
def test_a_node_that_joins_takes_its_share_and_nothing_else_moves_while_nobody_has_left(
    n_partitions: int, n_replicas: int, n_nodes: int
) -> None:
    before = assign(n_partitions, n_replicas, range(n_nodes), n_nodes)
    after = assign(n_partitions, n_replicas, range(n_nodes + 1), n_nodes + 1)
    came = arrivals(before, after)
    assert (after[came] == n_nodes).all()
    assert came.sum() == n_partitions * min(n_replicas, n_nodes + 1) // (n_nodes + 1)


@given(clusters(), st.randoms(use_true_random=False))
def test_the_order_in_which_members_are_named_does_not_matter(
    cluster: tuple[int, int, list[int], int], order: random.Random
) -> None:
    n_partitions, n_replicas, members, n_ordinals = cluster
    shuffled = order.sample(members, len(members))
    found = assign(n_partitions, n_replicas, iter(shuffled), n_ordinals)
    assert np.array_equal(found, assign(*cluster))


class State(NamedTuple):
    """A cluster at one time, its placement, and which partitions the bound has displaced."""

    members: list[int]
    placed: NDArray[np.int32]
    displaced: NDArray[np.bool_]


def state(n_partitions: int, n_replicas: int, members: list[int], n_ordinals: int) -> State:
    free = placement._assign(n_partitions, n_replicas, members, n_ordinals, UNBOUNDED)
    placed = assign(n_partitions, n_replicas, members, n_ordinals)
    return State(members, placed, arrivals(free, placed).any(axis=1))


@given(clusters(), st.data())
def test_without_the_bound_only_the_node_that_comes_or_goes_has_partitions_moved(
    cluster: tuple[int, int, list[int], int], data: st.DataObject
) -> None:
    n_partitions, n_replicas, members, n_ordinals = cluster
    grown = [*members, n_ordinals]
    gone = data.draw(st.sampled_from(grown))
    shrunk = [member for member in grown if member != gone]
    first = placement._assign(n_partitions, n_replicas, members, n_ordinals, UNBOUNDED)
    second = placement._assign(n_partitions, n_replicas, grown, n_ordinals + 1, UNBOUNDED)
    third = placement._assign(n_partitions, n_replicas, shrunk, n_ordinals + 1, UNBOUNDED)
    nowhere = np.zeros(n_partitions, dtype=np.bool_)
    assert_only_moved_for(n_ordinals, first, second, beyond=nowhere)
    assert_only_moved_for(gone, second, third, beyond=nowhere)


@given(clusters(), st.data())
def test_members_exchange_only_partitions_that_the_bound_displaced_before_or_after(
    cluster: tuple[int, int, list[int], int], data: st.DataObject
) -> None:
    n_partitions, n_replicas, members, n_ordinals = cluster
    grown = [*members, n_ordinals]
    gone = data.draw(st.sampled_from(grown))
    first = state(*cluster)
    second = state(n_partitions, n_replicas, grown, n_ordinals + 1)
    third = state(n_partitions, n_replicas, [member for member in grown if member != gone], n_ordinals + 1)
    assert_only_moved_for(n_ordinals, first.placed, second.placed, beyond=first.displaced | second.displaced)
    assert_only_moved_for(gone, second.placed, third.placed, beyond=second.displaced | third.displaced)


@given(st.integers(1, 60), st.integers(1, 4), st.integers(1, 20), st.data())
def test_the_first_to_leave_gives_away_its_own_and_else_one_replica_moves_for_each_swap(
    n_partitions: int, n_replicas: int, n_nodes: int, data: st.DataObject
) -> None:
    gone = data.draw(st.integers(0, n_nodes - 1))
    before = assign(n_partitions, n_replicas, range(n_nodes), n_nodes)
    with counted_swaps() as swaps:
        after = assign(n_partitions, n_replicas, [node for node in range(n_nodes) if node != gone], n_nodes)
    had_it = (before == gone).any(axis=1)
    assert arrivals(before, after)[~had_it].sum() <= len(swaps)


@contextmanager
def counted_swaps() -> Iterator[list[int]]:
    """One entry for every slot that had to be swapped in."""
    swaps: list[int] = []
    original = placement._swap_in

    def counting(placed: Any, partition: int, *others: Any) -> None:
        swaps.append(partition)
        original(placed, partition, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(placement, "_swap_in", counting)
        yield swaps


def assert_only_moved_for(
    node: int, before: NDArray[np.int32], after: NDArray[np.int32], *, beyond: NDArray[np.bool_]
) -> None:
    """Of a partition, at most one replica comes and one goes, and one of the two is the node's."""
    for old, new in zip(before[~beyond].tolist(), after[~beyond].tolist(), strict=True):
        came, went = set(new) - set(old) - {-1}, set(old) - set(new) - {-1}
        assert len(came) <= 1
        assert len(went) <= 1
        assert not came | went or node in came | went


def test_the_same_placement_comes_out_of_another_process() -> None:
    code = "from common.placement import assign; print(assign(256, 3, [0, 2, 3, 5, 8, 9], 11).tolist())"
    for seed in ("1", "2"):
        found = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "NUMBA_DISABLE_JIT": "1"},
        )
        assert found.stdout.strip() == str(assign(256, 3, [0, 2, 3, 5, 8, 9], 11).tolist())


FROZEN_FIVE = [[0, 3, 2], [1, 3, 0], [4, 0, 1], [0, 3, 2], [4, 2, 3], [2, 4, 1], [3, 1, 4], [1, 2, 0]]
FROZEN_GAPS = [[5, 3, 2], [6, 3, 0], [5, 0, 6], [0, 3, 2], [2, 5, 6], [2, 5, 0], [5, 3, 6], [6, 2, 0]]


def test_frozen_placements_stay_what_they_are() -> None:
    assert assign(8, 3, range(5), 5).tolist() == FROZEN_FIVE
    assert assign(8, 3, [0, 2, 3, 5, 6], 7).tolist() == FROZEN_GAPS


def test_the_jumps_are_those_of_the_jump_hash() -> None:
    keys = placement._slot_keys(500, 3)
    expected = np.empty(1500, dtype=np.int32)
    jump_hash(keys, 19, expected)
    buckets = np.zeros(1500, dtype=np.int32)
    state, jumps = placement._next_jump(keys, 0)
    for ordinal in range(1, 19):
        now = np.floor(jumps) == ordinal
        buckets[now] = ordinal
        state[now], jumps[now] = placement._next_jump(state[now], ordinal)
    assert np.array_equal(buckets, expected)


def test_a_slot_that_all_have_declined_is_swapped_in_and_the_bound_holds() -> None:
    with counted_swaps() as swaps:
        for n_ordinals in range(5, 30):
            members = list(range(n_ordinals - 4, n_ordinals))
            placed = assign(100, 3, members, n_ordinals)
            assert loads_of(placed, members).max() <= capacity(100, 3, 4)
            assert all(len(set(row)) == 3 for row in placed.tolist())
            assert (placed >= 0).all()
    assert swaps


def test_no_slot_has_to_be_swapped_in_a_cluster_of_usual_size() -> None:
    with counted_swaps() as swaps:
        for gone in range(19):
            assign(1024, 3, [node for node in range(19) if node != gone], 19)
            assign(1024, 3, range(gone + 1, 20 + gone), 20 + gone)
    assert not swaps


@pytest.mark.parametrize(
    ("n_partitions", "n_replicas", "n_members", "expected"),
    [(1024, 3, 19, 164), (1024, 3, 18, 173), (100, 3, 3, 101), (100, 3, 2, 101), (100, 1, 100, 2), (1, 3, 50, 1)],
)
def test_capacity_is_the_mean_and_one_percent_rounded_up(
    n_partitions: int, n_replicas: int, n_members: int, expected: int
) -> None:
    assert capacity(n_partitions, n_replicas, n_members) == expected


def test_arrivals_do_not_count_a_change_of_order() -> None:
    before = np.array([[1, 2, 3], [1, 2, -1]], dtype=np.int32)
    after = np.array([[3, 1, 2], [2, 4, -1]], dtype=np.int32)
    assert arrivals(before, after).tolist() == [[False, False, False], [False, True, False]]


def test_the_answer_is_the_callers_own() -> None:
    assign(16, 3, range(5), 5)[:] = 0
    assert len(np.unique(assign(16, 3, range(5), 5))) == 5


@pytest.mark.parametrize(
    ("n_partitions", "n_replicas", "members", "n_ordinals"),
    [(0, 3, [0], 1), (16, 0, [0], 1), (16, 3, [0, 0], 1), (16, 3, [1], 1), (16, 3, [-1], 1), (16, 3, [0], 65_536)],
)
def test_nonsense_is_a_programmers_error(
    n_partitions: int, n_replicas: int, members: list[int], n_ordinals: int
) -> None:
    with pytest.raises(AssertionError):
        assign(n_partitions, n_replicas, members, n_ordinals)
