"""Who belongs to the cluster, as a function of the control topic: records in, members and seats out."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

from common.control.events import (
    LAYOUT_KEY,
    NODE_PREFIX,
    Event,
    EventKind,
    Layout,
    Presence,
    Record,
    Seat,
    ordinal_of_key,
)
from common.errors import StartupError

LIVE_S = 10.0
"""A node whose last heartbeat is older than this counts as gone."""


@dataclass(frozen=True, slots=True)
class Member:
    """A storage node as last heard of.

    heard_ms: the broker's time of its last record. heard_s: the same on the reader's monotonic clock.
    stopped: it has said goodbye. The other fields are those of `Event`.
    """

    name: str
    instance: str
    address: str
    applied: dict[int, int]
    lagging: frozenset[int]
    ready: bool
    stopped: bool
    heard_ms: int
    heard_s: float

    def has(self, partition: int) -> bool:
        """Whether it holds a partition with all that was in the log when it opened it."""
        return partition in self.applied and partition not in self.lagging

    def preference(self, partition: int) -> int:
        """Of nodes that are alike take the lowest: always the same for a partition, and each equally often."""
        return zlib.crc32(f"{self.name}/{partition}".encode())


class Members:
    """The fold over the topic's records. One thread."""

    def __init__(self) -> None:
        self.layout: Layout | None = None
        self.by_name: dict[str, Member] = {}
        self.seats: dict[int, Seat] = {}

    def apply(self, record: Record, time_ms: int, heard_s: float) -> str | None:
        """Take a record in; returns why it is passed over, if it is.

        time_ms: the broker's time of the record; the only clock that decides. heard_s: see `Member`.
        """
        match record:
            case Layout():
                self.layout = record
            case Seat():
                self.seats[record.ordinal] = record
            case Event():
                return self._apply_event(record, time_ms, heard_s)
        return None

    def _apply_event(self, event: Event, time_ms: int, heard_s: float) -> str | None:
        holder = self.by_name.get(event.node)
        if event.kind is EventKind.STOP:
            if holder is not None and holder.instance == event.instance:
                self.by_name[event.node] = replace(
                    holder, applied={}, ready=False, stopped=True, heard_ms=time_ms, heard_s=heard_s
                )
            return None
        if holder is not None and not _succeeds(event, holder, time_ms):
            return "its name belongs to another live node"
        self.by_name[event.node] = Member(
            event.node,
            event.instance,
            event.address,
            event.applied,
            event.lagging,
            event.ready,
            stopped=False,
            heard_ms=time_ms,
            heard_s=heard_s,
        )
        return None

    def forget(self, key: str) -> None:
        """The record of a key was deleted."""
        ordinal = ordinal_of_key(key)
        if ordinal is not None:
            self.seats.pop(ordinal, None)
        elif key == LAYOUT_KEY:
            self.layout = None
        else:
            self.by_name.pop(key.removeprefix(NODE_PREFIX), None)

    def seat_of(self, name: str) -> Seat | None:
        """The seat of a node: should it have two, that of the lowest ordinal."""
        return next(iter(self._seats_of(name)), None)

    def spare_seats(self, name: str) -> list[Seat]:
        """Seats of a node besides that of `seat_of`: it claimed again before it had read its first claim."""
        return self._seats_of(name)[1:]

    def _seats_of(self, name: str) -> list[Seat]:
        return sorted((seat for seat in self.seats.values() if seat.node == name), key=lambda seat: seat.ordinal)

    def free_ordinal(self) -> int:
        """The lowest that nobody has: a newcomer takes over what the last one to have it left behind."""
        return next(ordinal for ordinal in range(len(self.seats) + 1) if ordinal not in self.seats)

    def check_layout(self, wanted: Layout, topic: str) -> None:
        """Raises StartupError if the cluster has another one."""
        layout = self.layout
        if layout is None or layout == wanted:
            return
        if wanted.partitions != layout.partitions:
            raise StartupError(
                f"the log has {wanted.partitions} partitions, but {topic} says that this cluster has"
                f" {layout.partitions}; the log was made anew or is another one: use another prefix in --log"
            )
        if wanted.format != layout.format:
            raise StartupError(
                f"this version of Tabor writes format {wanted.format}, but {topic} says that this cluster uses"
                f" format {layout.format}; run the version that the other nodes run"
            )
        raise StartupError(
            f"--replicas is {wanted.replicas}, but {topic} says that this cluster keeps {layout.replicas};"
            " leave the flag out"
        )

    def check_name(self, newcomer: Event, now_s: float) -> None:
        """Raises StartupError if its name belongs to another live node. now_s: the reader's monotonic clock."""
        holder = self.by_name.get(newcomer.node)
        if holder is None or holder.stopped or _is_same(newcomer, holder):
            return
        age_s = now_s - holder.heard_s
        if age_s < LIVE_S:
            raise StartupError(
                f"a storage node named {newcomer.node!r} is alive at {holder.address} (heard {age_s:.0f} s ago);"
                f" choose another --name, or if it has just died start again in {LIVE_S:.0f} s"
            )


def seated(seats: dict[int, Seat]) -> list[int]:
    """Ordinals of the nodes that partitions are given to, ascending; of a node with two seats the lower one."""
    first = {seat.node: ordinal for ordinal, seat in sorted(seats.items(), reverse=True)}
    return sorted(ordinal for ordinal in first.values() if seats[ordinal].presence is Presence.IN)


def _is_same(event: Event, holder: Member) -> bool:
    return holder.instance == event.instance or holder.address == event.address


def _succeeds(event: Event, holder: Member, time_ms: int) -> bool:
    """Whether a heartbeat may take the place of the last one: same node, restarted, or the old one is gone."""
    return holder.stopped or _is_same(event, holder) or time_ms - holder.heard_ms >= LIVE_S * 1000
