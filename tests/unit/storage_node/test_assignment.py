"""What a node has to hold, as the control topic says it."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.control.events import Layout, Presence, Seat
from common.control.members import Member
from storage_node.assignment import Targets, chosen_for, decide, long_silent, sources_of


def seats(*names: str, **presences: Presence) -> dict[int, Seat]:
    return {i: Seat(i, name, presences.get(name, Presence.IN)) for i, name in enumerate(names)}


def member(name: str, has: set[int] | range, lagging: frozenset[int] = frozenset()) -> Member:
    return Member(name, "i", "h:1", dict.fromkeys(has, 5), lagging, True, False, 0, 0.0)


LAYOUT = Layout(16, 1, 3)


def test_with_few_nodes_each_holds_everything() -> None:
    for n in (1, 2, 3):
        names = "abc"[:n]
        targets = Targets(LAYOUT, seats(*names))
        for name in names:
            assert decide(name, targets, {}, set()).hold == frozenset(range(16))


def test_a_node_without_a_seat_or_that_drains_gets_nothing_and_keeps_what_others_lack() -> None:
    targets = Targets(LAYOUT, seats("a", "b", "c", "d", d=Presence.DRAINING))
    everything = frozenset(range(16))
    live = {name: member(name, range(16)) for name in "abd"}
    # c is not there, and so d must not go.
    assert decide("d", targets, live, {3, 4}).hold == {3, 4}
    live["c"] = member("c", range(16), lagging=frozenset({4}))
    decision = decide("d", targets, live, {3, 4})
    assert decision.hold == {4}, "c does not have all of partition 4 yet"
    assert decision.spare == {3}
    assert decide("e", targets, live, everything).spare == everything - {4}


def test_the_lowest_live_node_marks_those_that_are_silent_for_long() -> None:
    everybody = seats("a", "b", "c", "d", d=Presence.DRAINING)
    live = {name: member(name, range(16)) for name in "bc"}
    silent = {"a": 700.0, "d": 700.0}
    assert long_silent("b", everybody, live, silent, 600.0) == [Seat(0, "a", Presence.AWAY)]
    assert long_silent("c", everybody, live, silent, 600.0) == []
    assert long_silent("b", everybody, live, {"a": 599.0}, 600.0) == []


def test_copies_come_from_the_node_that_is_furthest() -> None:
    ahead = Member("b", "i", "h:1", {1: 9000}, frozenset(), True, False, 0, 0.0)
    live = {"a": member("a", {1}), "b": ahead, "c": member("c", {1}, frozenset({1})), "me": member("me", {1})}
    assert [one.name for one in sources_of(1, "me", live)] == ["b", "a"]


def test_copies_of_many_partitions_come_from_all_that_have_them() -> None:
    live = {name: member(name, range(30)) for name in "abcd"}
    first = [sources_of(partition, "a", live)[0].name for partition in range(30)]
    assert set(first) == {"b", "c", "d"}


Change = Callable[[dict[int, Seat]], None]


@pytest.mark.parametrize("n_partitions", [8, 32])
@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32))
def test_no_partition_ever_has_fewer_whole_copies_than_replicas_while_nodes_come_and_drain(
    n_partitions: int, seed: int
) -> None:
    """Nodes act one after the other in any order, on views of the others that may be old."""
    rng = random.Random(seed)
    layout = Layout(n_partitions, 1, 3)
    everybody = seats("a", "b", "c", "d")
    held: dict[str, set[int]] = {}
    for name in "abcd":
        held[name] = set(decide(name, Targets(layout, everybody), {}, set()).hold)
    for step in range(60):
        if step % 15 == 0:
            change(rng, everybody, held)
        name = rng.choice(sorted(held))
        targets = Targets(layout, everybody)
        live = {other: member(other, set(has)) for other, has in held.items()}
        decision = decide(name, targets, live, held[name])
        lacking = sorted(decision.hold - held[name])
        held[name] |= set(lacking[: rng.randint(0, len(lacking))])
        held[name] -= decision.spare
        for partition in range(n_partitions):
            copies = sum(partition in has for has in held.values())
            assert copies >= 3, f"partition {partition} has {copies} copies"
    for _ in range(4):
        for name in sorted(held):
            live = {other: member(other, set(has)) for other, has in held.items()}
            decision = decide(name, Targets(layout, everybody), live, held[name])
            held[name] = (held[name] | decision.hold) - decision.spare
    targets = Targets(layout, everybody)
    for partition in range(n_partitions):
        assert {name for name, has in held.items() if partition in has} == set(targets.of(partition))


def change(rng: random.Random, everybody: dict[int, Seat], held: dict[str, set[int]]) -> None:
    """A node joins, or one drains as long as enough are left."""
    present = [seat for seat in everybody.values() if seat.presence is Presence.IN]
    if len(present) > 4 and rng.random() < 0.5:
        leaver = rng.choice(present)
        everybody[leaver.ordinal] = Seat(leaver.ordinal, leaver.node, Presence.DRAINING)
    else:
        ordinal = max(everybody) + 1
        everybody[ordinal] = Seat(ordinal, f"n{ordinal}", Presence.IN)
        held[f"n{ordinal}"] = set()


def test_each_partition_is_looked_after_by_one_of_those_that_have_it() -> None:
    live = {name: member(name, range(30)) for name in "abc"} | {"d": member("d", {1}, frozenset({2}))}
    chosen = {name: chosen_for(name, range(30), live) for name in live}
    assert sorted(p for found in chosen.values() for p in found) == list(range(30))
    assert all(len(chosen[name]) > 3 for name in "abc"), "the work is spread"
    del live["a"]
    left = {name: chosen_for(name, range(30), live) for name in live}
    assert sorted(p for found in left.values() for p in found) == list(range(30))
    assert all(set(chosen[name]) <= set(left[name]) for name in "bc"), "nothing else moves"
    assert chosen_for("a", range(30), live) == [], "who is not live does nothing"
