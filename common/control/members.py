"""Who belongs to the cluster, as a function of the control topic: events in, members out."""

from __future__ import annotations

from dataclasses import dataclass

from common.control.events import Event, EventKind
from common.errors import StartupError

LIVE_S = 10.0
"""A node whose last heartbeat is older than this counts as gone."""


@dataclass(frozen=True, slots=True)
class Member:
    """A storage node as last heard of.

    heard_ms: the broker's time of its last heartbeat. heard_s: the same on the reader's monotonic clock.
    The other fields are those of `Event`.
    """

    name: str
    instance: str
    address: str
    partitions: int
    applied: tuple[int, ...]
    ready: bool
    heard_ms: int
    heard_s: float


@dataclass(frozen=True, slots=True)
class Layout:
    """What all nodes of a log must agree on; fixed by the first record of the topic."""

    partitions: int
    format: int


class Members:
    """The fold over the topic's records. One thread."""

    def __init__(self) -> None:
        self.layout: Layout | None = None
        self.by_name: dict[str, Member] = {}

    def apply(self, event: Event, time_ms: int, heard_s: float) -> str | None:
        """Take an event in; returns why it is passed over, if it is.

        time_ms: the broker's time of the record; the only clock that decides. heard_s: see `Member`.
        """
        if self.layout is None:
            self.layout = Layout(event.partitions, event.format)
        if (event.partitions, event.format) != (self.layout.partitions, self.layout.format):
            return "another number of partitions or format"
        holder = self.by_name.get(event.node)
        if event.kind is EventKind.LEAVE:
            if holder is not None and holder.instance == event.instance:
                del self.by_name[event.node]
            return None
        if holder is not None and not _succeeds(event, holder, time_ms):
            return "its name belongs to another live node"
        self.by_name[event.node] = Member(
            event.node,
            event.instance,
            event.address,
            event.partitions,
            event.applied,
            event.ready,
            time_ms,
            heard_s,
        )
        return None

    def forget(self, name: str) -> None:
        """The record of a name was deleted."""
        self.by_name.pop(name, None)

    def check(self, newcomer: Event, topic: str, now_s: float) -> None:
        """Whether a node may join.

        now_s: the reader's monotonic clock.
        Raises:
            StartupError: it has another configuration, or its name belongs to another live node.
        """
        layout = self.layout
        if layout is not None and newcomer.partitions != layout.partitions:
            raise StartupError(
                f"the log has {newcomer.partitions} partitions, but {topic} says that this cluster has"
                f" {layout.partitions}; the log was made anew or is another one: use another prefix in --log"
            )
        if layout is not None and newcomer.format != layout.format:
            raise StartupError(
                f"this version of Tabor writes format {newcomer.format}, but {topic} says that this cluster uses"
                f" format {layout.format}; run the version that the other nodes run"
            )
        holder = self.by_name.get(newcomer.node)
        if holder is None or holder.instance == newcomer.instance or holder.address == newcomer.address:
            return
        age_s = now_s - holder.heard_s
        if age_s < LIVE_S:
            raise StartupError(
                f"a storage node named {newcomer.node!r} is alive at {holder.address} (heard {age_s:.0f} s ago);"
                f" choose another --name, or if it has just died start again in {LIVE_S:.0f} s"
            )


def _succeeds(event: Event, holder: Member, time_ms: int) -> bool:
    """Whether a heartbeat may take the place of the last one: same node, restarted, or the old one is gone."""
    if holder.instance == event.instance or holder.address == event.address:
        return True
    return time_ms - holder.heard_ms >= LIVE_S * 1000
