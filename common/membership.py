"""Membership: storage nodes announce themselves in the control topic, and everybody follows it.

node:   Announcer ── layout, seat, heartbeat every 2 s, stop at the end ──► control topic
all:    control topic ──► Membership (a thread) ──► Members ──► cluster(), in any thread

`docs/decisions/0040-membership-in-the-log.md`, `docs/decisions/0042-cluster.md`.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, replace
from typing import TypeVar

from common.control.base import ControlRecord, ControlTopic
from common.control.events import (
    Event,
    EventKind,
    Layout,
    Presence,
    Record,
    Seat,
    encode_record,
    key_of,
    parse_record,
)
from common.control.members import LIVE_S, Member, Members
from common.errors import CorruptError, LogUnavailable, StartupError
from common.events import EventLog

T = TypeVar("T")

HEARTBEAT_S = 2.0
DEFAULT_REPLICAS = 3
"""Nodes that each partition is on, unless the cluster says otherwise."""
LOG_FORMAT = 1
"""Version of the log's records that this code reads and writes (`common.record`)."""

_POLL_S = 0.1
_RETRY_S = 0.5
_LOOK_S = 0.1
_LEAVE_S = 2.0

_log = EventLog("membership")


@dataclass(frozen=True, slots=True)
class Cluster:
    """The control topic's state. seats: by ordinal, ascending. members: by name, ascending."""

    layout: Layout | None
    seats: dict[int, Seat]
    members: dict[str, Member]


class Membership:
    """Follows the control topic in a thread of its own. Start it, ask it from any thread, close it.

    The topic stays the caller's to close. live_s: after so long a silence a node is taken to be down.
    clock: monotonic seconds; wall_ms: Unix ms.
    """

    def __init__(
        self,
        topic: ControlTopic,
        *,
        live_s: float = LIVE_S,
        clock: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.topic = topic
        self.live_s = live_s
        self._clock = clock
        self._wall_ms = wall_ms
        self._members = Members()
        self._changed = threading.Condition()
        self._position = 0
        self._read = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="membership", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop following. A second call does nothing."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def wait_read(self, timeout_s: float) -> bool:
        """Wait until all that was in the topic at the start has been read; False if the time is over."""
        with self._changed:
            return self._changed.wait_for(lambda: self._read, timeout_s)

    def wait_position(self, offset: int, timeout_s: float) -> bool:
        """Wait until everything below this offset has been read; False if the time is over."""
        with self._changed:
            return self._changed.wait_for(lambda: self._position >= offset, timeout_s)

    def nodes(self) -> list[Member]:
        """All nodes that have not stopped, by name, however long ago they were heard."""
        return [member for member in self.cluster().members.values() if not member.stopped]

    def cluster(self) -> Cluster:
        """All that the topic says so far."""
        with self._changed:
            found = self._members
            return Cluster(found.layout, dict(sorted(found.seats.items())), dict(sorted(found.by_name.items())))

    def find(self, name: str) -> Member | None:
        with self._changed:
            return self._members.by_name.get(name)

    def check_name(self, newcomer: Event) -> None:
        """Raises StartupError if a node may not have its name; see `Members.check_name`."""
        with self._changed:
            self._members.check_name(newcomer, self._clock())

    def read(self, ask: Callable[[Members], T]) -> T:
        """What `ask` makes of the members as they are now."""
        with self._changed:
            return ask(self._members)

    def age_s(self, member: Member) -> float:
        """Seconds since a node was last heard of."""
        return max(0.0, self._clock() - member.heard_s)

    def is_live(self, member: Member) -> bool:
        """Whether a node has not stopped and was heard of lately."""
        return not member.stopped and self.age_s(member) < self.live_s

    def live(self, cluster: Cluster) -> dict[str, Member]:
        """Its live nodes, by name."""
        return {name: member for name, member in cluster.members.items() if self.is_live(member)}

    def uncovered(self, n_partitions: int) -> list[int]:
        """Partitions that no live node has whole."""
        live = [member for member in self.live(self.cluster()).values() if member.ready]
        return [p for p in range(n_partitions) if not any(member.has(p) for member in live)]

    def _follow(self) -> None:
        backlog_end: int | None = None
        failing = False
        while not self._stop.is_set():
            try:
                if backlog_end is None:
                    backlog_end = self.topic.end()
                records = self.topic.poll(_POLL_S)
                if records and failing:
                    failing = False
                    _log.info("control_topic_read_again")
            except LogUnavailable as error:
                if not failing:
                    failing = True
                    _log.warning("control_topic_unavailable", reason=str(error))
                self._stop.wait(_RETRY_S)
                continue
            with self._changed:
                for record in records:
                    self._apply(record, in_backlog=record.offset < backlog_end)
                self._position = self.topic.position
                self._read = self._read or self._position >= backlog_end
                self._changed.notify_all()

    def _apply(self, record: ControlRecord, *, in_backlog: bool) -> None:
        if record.value is None:
            self._members.forget(record.key)
            return
        heard_s = self._clock()
        if in_backlog:
            # How old it is can only be told from the broker's clock and ours. If they differ, the next heartbeat
            # puts it right.
            heard_s -= max(0, self._wall_ms() - record.time_ms) / 1000
        try:
            parsed = parse_record(record.key, record.value, record.offset)
        except CorruptError as error:
            _log.error("control_record_quarantined", offset=record.offset, reason=str(error))
            return
        reason = None if parsed is None else self._members.apply(parsed, record.time_ms, heard_s)
        if reason is not None and not in_backlog:
            _log.warning("control_record_passed_over", offset=record.offset, key=record.key, reason=reason)


@dataclass(frozen=True, slots=True)
class NodeState:
    """What changes in a node's heartbeats; see `Event`."""

    applied: dict[int, int]
    lagging: frozenset[int]
    ready: bool


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a node says of itself all its life; see `Event` and `Layout`.

    replicas: None takes what the cluster has, else DEFAULT_REPLICAS. state: asked for each heartbeat.
    """

    node: str
    address: str
    partitions: int
    state: Callable[[], NodeState]
    replicas: int | None = None
    format: int = LOG_FORMAT


class Announcer:
    """Makes a storage node known. `start`, then `leave`."""

    def __init__(
        self,
        membership: Membership,
        announcement: Announcement,
        *,
        heartbeat_s: float = HEARTBEAT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._membership = membership
        self._topic = membership.topic
        self._says = announcement
        self._instance = secrets.token_hex(8)
        self._heartbeat_s = heartbeat_s
        self._clock = clock
        self._stop = threading.Event()
        self._joined = False
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self, timeout_s: float = 20.0) -> None:
        """Join the cluster, take a seat in it, and keep saying so.

        Raises:
            StartupError: the control topic does not answer, has another configuration, or the name is taken.
        """
        if not self._membership.wait_read(timeout_s):
            raise self._silent(timeout_s)
        self._agree(timeout_s)
        event = self._event(EventKind.HEARTBEAT)
        self._membership.check_name(event)
        self._put(event, timeout_s)
        # Somebody may have joined between the look and the leap; the order of the topic says who was first.
        try:
            self._membership.check_name(event)
        except StartupError:
            if self._membership.find(event.node) is None:
                self._topic.send(key_of(event), None)
            raise
        while (claim := self._claim()) is not None:
            # Of two that claim an ordinal at once the second has it, and the first takes another.
            self._put(claim, timeout_s)
        self._joined = True
        self._thread.start()

    def leave(self) -> None:
        """Stop the heartbeats and say goodbye, so that nobody waits for this node. A second call does nothing.

        Its seat stays its own, and a node that is restarted comes back to its partitions; unless it has drained.
        """
        self._stop.set()
        if not self._joined:
            return
        self._joined = False
        self._thread.join()
        try:
            seat = self._membership.read(lambda members: members.seat_of(self._says.node))
            if seat is not None and seat.presence is Presence.DRAINING and not self._says.state().applied:
                # It has given everything away, which is what draining was for.
                self._topic.send(key_of(seat), None).result(_LEAVE_S)
            self._send(self._event(EventKind.STOP)).result(_LEAVE_S)
        except (LogUnavailable, FutureTimeout) as error:
            _log.warning("leave_not_announced", reason=str(error) or "no answer")

    def _agree(self, timeout_s: float) -> None:
        """See that the cluster has this node's layout; the first node says what it is."""
        says = self._says
        for _ in range(2):
            found = self._membership.cluster().layout
            replicas = says.replicas or (DEFAULT_REPLICAS if found is None else found.replicas)
            layout = Layout(says.partitions, says.format, replicas)
            if found is None:
                self._put(layout, timeout_s)
        self._membership.read(lambda members: members.check_layout(layout, self._topic.name))

    def _claim(self) -> Seat | None:
        """The seat that this node should write down, if it has none or was taken for lost."""
        name = self._says.node

        def claim(members: Members) -> Seat | None:
            seat = members.seat_of(name)
            if seat is None:
                return Seat(members.free_ordinal(), name, Presence.IN)
            return replace(seat, presence=Presence.IN) if seat.presence is Presence.AWAY else None

        return self._membership.read(claim)

    def _put(self, record: Record, timeout_s: float) -> None:
        """Write a record and wait until it has been read back. Raises StartupError."""
        try:
            offset = self._send(record).result(timeout_s)
        except (LogUnavailable, FutureTimeout) as error:
            raise StartupError(f"{self._topic.name} takes no records: {error or 'no answer'}") from None
        if not self._membership.wait_position(offset + 1, timeout_s):
            raise self._silent(timeout_s)

    def _silent(self, timeout_s: float) -> StartupError:
        return StartupError(f"{self._topic.name} could not be read within {timeout_s:g} s; is Kafka well?")

    def _event(self, kind: EventKind) -> Event:
        says = self._says
        state = says.state() if kind is EventKind.HEARTBEAT else NodeState({}, frozenset(), ready=False)
        return Event(
            kind=kind,
            node=says.node,
            instance=self._instance,
            address=says.address,
            applied=state.applied,
            lagging=state.lagging,
            ready=state.ready,
            at_ms=time.time_ns() // 1_000_000,
        )

    def _send(self, record: Record) -> Future[int]:
        return self._topic.send(key_of(record), encode_record(record))

    def _beat(self) -> None:
        """Heartbeats in regular intervals, and at once when the node holds something else or becomes ready."""
        sent: Future[int] | None = None
        sent_at_s, said, failing, taken = self._clock(), None, False, False
        while not self._stop.wait(_LOOK_S):
            state = self._says.state()
            news = (state.applied.keys(), state.lagging, state.ready)
            if news == said and self._clock() - sent_at_s < self._heartbeat_s:
                continue
            if sent is not None:
                if not sent.done():
                    # One under way at a time; while Kafka is away they would only pile up.
                    continue
                failed = sent.exception() is not None
                if failed and not failing:
                    _log.warning("heartbeat_failed", reason=str(sent.exception()))
                failing = failed
            holder = self._membership.find(self._says.node)
            if holder is not None and holder.instance != self._instance and not taken:
                taken = True
                _log.error("name_taken", node=self._says.node, by=holder.address)
            claim = self._claim()
            if claim is not None and not taken:
                _log.warning("seat_claimed_again", node=self._says.node, ordinal=claim.ordinal)
                self._send(claim)
            for seat in self._membership.read(lambda members: members.spare_seats(self._says.node)):
                self._topic.send(key_of(seat), None)
            said = news
            sent, sent_at_s = self._send(self._event(EventKind.HEARTBEAT)), self._clock()
