"""What a node of a cluster has to hold, as a function of what the control topic says. No clock, no I/O.

seats ─► placement ─► targets of each partition ─► hold: those that name this node,
                                                   and those it has whose targets do not all have them yet
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from functools import lru_cache

from common.control.events import Layout, Presence, Seat
from common.control.members import Member, seated
from common.placement import assign

_LIKE_RECORDS = 1024


@dataclass(frozen=True, slots=True)
class Decision:
    """hold: partitions that the node has to have. spare: of what it has, partitions that it may drop."""

    hold: frozenset[int]
    spare: frozenset[int]


class Targets:
    """On which nodes each partition belongs, by name."""

    def __init__(self, layout: Layout, seats: Mapping[int, Seat]) -> None:
        ordinals = tuple(seated(dict(seats)))
        # An ordinal without a seat is given again, so the highest seat says how many there are.
        n_ordinals = max(seats, default=-1) + 1
        self._placement = _placement(layout.partitions, layout.replicas, ordinals, n_ordinals)
        self._names = {ordinal: seats[ordinal].node for ordinal in ordinals}

    def of(self, partition: int) -> list[str]:
        """Names of the nodes, first choice first; fewer than replicas if the cluster has fewer nodes."""
        return [self._names[ordinal] for ordinal in self._placement[partition] if ordinal >= 0]

    def __len__(self) -> int:
        return len(self._placement)


@lru_cache(maxsize=4)
def _placement(n_partitions: int, n_replicas: int, ordinals: tuple[int, ...], n_ordinals: int) -> list[list[int]]:
    placed: list[list[int]] = assign(n_partitions, n_replicas, ordinals, n_ordinals).tolist()
    return placed


def decide(name: str, targets: Targets, live: Mapping[str, Member], held: Set[int]) -> Decision:
    """What the node `name` does, which has `held`. live: the nodes that are there, by name.

    A partition that belongs elsewhere is kept until each node on which it belongs is there and has it, so that no
    partition ever has fewer whole copies than before.
    """
    hold: set[int] = set()
    spare: set[int] = set()
    for partition in range(len(targets)):
        wanted = targets.of(partition)
        if name in wanted:
            hold.add(partition)
        elif partition in held:
            settled = wanted and all(node in live and live[node].has(partition) for node in wanted)
            (spare if settled else hold).add(partition)
    return Decision(frozenset(hold), frozenset(spare))


def sources_of(partition: int, name: str, live: Mapping[str, Member]) -> list[Member]:
    """Nodes that can give the node `name` a copy, the most caught up first; of like ones not always the same."""
    having = [member for member in live.values() if member.name != name and member.has(partition)]

    def rank(member: Member) -> tuple[int, int, str]:
        return -(member.applied[partition] // _LIKE_RECORDS), member.preference(partition), member.name

    return sorted(having, key=rank)


def chosen_for(name: str, partitions: Iterable[int], live: Mapping[str, Member]) -> list[int]:
    """Those of the partitions that the node `name` is to look after, of all that have them; ascending."""

    def chosen(partition: int) -> str:
        having = (member for member in live.values() if member.has(partition))
        return min(having, key=lambda member: (member.preference(partition), member.name)).name

    ours = [p for p in sorted(partitions) if name in live and live[name].has(p)]
    return [partition for partition in ours if chosen(partition) == name]


def long_silent(
    name: str, seats: Mapping[int, Seat], live: Mapping[str, Member], silent_s: Mapping[str, float], limit_s: float
) -> list[Seat]:
    """Seats that the node `name` should mark as left, for their nodes were silent for longer than the limit.

    One node does so for all: the live one with the lowest ordinal. silent_s: of each node that is not live.
    """
    present = [seat for seat in seats.values() if seat.node in live]
    if not present or min(present, key=lambda seat: seat.ordinal).node != name:
        return []
    return [
        Seat(seat.ordinal, seat.node, Presence.AWAY)
        for seat in seats.values()
        if seat.presence is Presence.IN and seat.node not in live and silent_s.get(seat.node, 0.0) > limit_s
    ]
