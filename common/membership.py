"""Membership: storage nodes announce themselves in the control topic, and everybody follows it.

node:   Announcer ── heartbeat every 2 s, leave at the end ──► control topic
all:    control topic ──► Membership (a thread) ──► Members ──► nodes(), in any thread

Minimal form: every storage node holds all partitions (`docs/decisions/0040-membership-in-the-log.md`).
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass

import structlog

from common.control.base import ControlRecord, ControlTopic
from common.control.events import Event, EventKind, encode_event, parse_event
from common.control.members import LIVE_S, Member, Members
from common.errors import CorruptError, LogUnavailable, StartupError

HEARTBEAT_S = 2.0
LOG_FORMAT = 1
"""Version of the log's records that this code reads and writes (`common.record`)."""

_POLL_S = 0.1
_RETRY_S = 0.5
_LOOK_S = 0.1
_LEAVE_S = 2.0

_log = structlog.get_logger("membership")


class Membership:
    """Follows the control topic in a thread of its own. Start it, ask it from any thread, close it.

    The topic stays the caller's to close. clock: monotonic seconds; wall_ms: Unix ms.
    """

    def __init__(
        self,
        topic: ControlTopic,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.topic = topic
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
        """All nodes that have not left, by name, however long ago they were heard."""
        with self._changed:
            return sorted(self._members.by_name.values(), key=lambda member: member.name)

    def find(self, name: str) -> Member | None:
        with self._changed:
            return self._members.by_name.get(name)

    def check(self, newcomer: Event) -> None:
        """Raises StartupError if a node may not join; see `Members.check`."""
        with self._changed:
            self._members.check(newcomer, self.topic.name, self._clock())

    def age_s(self, member: Member) -> float:
        """Seconds since a node was last heard of."""
        return max(0.0, self._clock() - member.heard_s)

    def has_ready_node(self) -> bool:
        """Whether there is a node that is ready and was heard of in the last LIVE_S seconds."""
        return any(member.ready and self.age_s(member) < LIVE_S for member in self.nodes())

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
            event = parse_event(record.value, record.offset)
        except CorruptError as error:
            _log.error("control_event_quarantined", offset=record.offset, reason=str(error))
            return
        reason = None if event is None else self._members.apply(event, record.time_ms, heard_s)
        if event is not None and reason is not None and not in_backlog:
            _log.warning("control_event_passed_over", offset=record.offset, node=event.node, reason=reason)


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a node says of itself all its life; see `Event`.

    state: asked for each heartbeat; gives the next offset of each partition and whether the node is ready.
    """

    node: str
    address: str
    partitions: int
    state: Callable[[], tuple[list[int], bool]]
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
        """Join the cluster, and keep saying so.

        Raises:
            StartupError: the control topic does not answer, has another configuration, or the name is taken.
        """
        if not self._membership.wait_read(timeout_s):
            raise StartupError(f"{self._topic.name} could not be read within {timeout_s:g} s; is Kafka well?")
        event = self._event(EventKind.HEARTBEAT)
        self._membership.check(event)
        try:
            offset = self._send(event).result(timeout_s)
        except (LogUnavailable, FutureTimeout) as error:
            raise StartupError(f"{self._topic.name} takes no records: {error or 'no answer'}") from None
        if not self._membership.wait_position(offset + 1, timeout_s):
            raise StartupError(f"{self._topic.name} could not be read within {timeout_s:g} s; is Kafka well?")
        # Somebody may have joined between the look and the leap; the order of the topic says who was first.
        try:
            self._membership.check(event)
        except StartupError:
            if self._membership.find(event.node) is None:
                self._topic.send(event.node, None)
            raise
        self._joined = True
        self._thread.start()

    def leave(self) -> None:
        """Stop the heartbeats and say goodbye, so that nobody waits for this node. A second call does nothing."""
        self._stop.set()
        if not self._joined:
            return
        self._joined = False
        self._thread.join()
        try:
            self._send(self._event(EventKind.LEAVE)).result(_LEAVE_S)
        except (LogUnavailable, FutureTimeout) as error:
            _log.warning("leave_not_announced", reason=str(error) or "no answer")

    def _event(self, kind: EventKind) -> Event:
        says = self._says
        applied, ready = says.state() if kind is EventKind.HEARTBEAT else ([], False)
        return Event(
            kind=kind,
            node=says.node,
            instance=self._instance,
            address=says.address,
            partitions=says.partitions,
            format=says.format,
            applied=tuple(applied),
            ready=ready,
            at_ms=time.time_ns() // 1_000_000,
        )

    def _send(self, event: Event) -> Future[int]:
        return self._topic.send(event.node, encode_event(event))

    def _beat(self) -> None:
        """Heartbeats in regular intervals, and at once when the node becomes ready."""
        sent: Future[int] | None = None
        sent_at_s, was_ready, failing, taken = self._clock(), False, False, False
        while not self._stop.wait(_LOOK_S):
            _, ready = self._says.state()
            if ready == was_ready and self._clock() - sent_at_s < self._heartbeat_s:
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
            was_ready = ready
            sent, sent_at_s = self._send(self._event(EventKind.HEARTBEAT)), self._clock()
