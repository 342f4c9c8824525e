"""Group commit: the one thread that turns what waits into records and appends them to the log.

    offer() ──► waiting (bounded) ──► take ──► group ──► seal ──► log.append ──► in flight (bounded)
                                        ▲                              │
    future of the item ◄── acknowledged or failed ◄────────────────────┘

A group is sent when an item of every sender is in it, when it has been lingering for `linger_s`, or when it is
full. How many senders there are is learnt from the group before: as many as it had items unanswered when it was
sent. So the items of a lone sender do not wait at all, and those of several senders that wait for their answers
share one append.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from common import tracing
from common.errors import LogUnavailable, TaborError
from common.log.base import Log
from ingest.batcher import Batcher, Group
from ingest.config import IngestConfig
from ingest.errors import QueueFull
from ingest.fair_queue import FairQueue
from ingest.metrics import IngestMetrics

TENANT_SHARE = 4
"""One tenant may fill the queue to one part of so many."""
SHARED_S = 2.0
"""For so long after the last change from one tenant to another groups stay small."""
MOST_REST_S = 0.02
_MOST_WANTED = 8
"""That many waiting items wake the ingest thread, however many more it expects."""
_MOST_LINKS = 100
"""Requests of a group commit that its span names."""


class HasSamples(Protocol):
    """What an item's outcome must tell."""

    @property
    def n_samples(self) -> int: ...


Outcome = TypeVar("Outcome", bound=HasSamples)


@dataclass(frozen=True, slots=True, eq=False)
class _Item(Generic[Outcome]):
    """Work for the ingest thread: `take` puts samples into the batcher and says what it took."""

    take: Callable[[Batcher], Outcome]
    tenant: str
    future: Future[Outcome]
    span: Any
    """The span context of who offered it, where tracing is on."""


class GroupCommitter(Generic[Outcome]):
    """Owns the batcher and the thread that uses it. `offer` may be called from any thread."""

    def __init__(
        self,
        batcher: Batcher,
        log: Log,
        config: IngestConfig,
        metrics: IngestMetrics,
        clock: Callable[[], int],
    ) -> None:
        self._batcher = batcher
        self._log = log
        self._config = config
        self._metrics = metrics
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: FairQueue[_Item[Outcome]] = FairQueue()
        self._open = 0  # items that were offered and not answered yet
        self._senders = 1
        self._waiters_for_room = 0
        # What the ingest thread sleeps for: that many waiting items, and whether a group that lands matters too.
        self._wanted = 1
        self._awaits_log = False
        self._acknowledged: deque[Group] = deque()
        self._in_flight = 0
        self._spans: list[Any] = []  # of the group that is being gathered
        self._closing = False
        self._last_tenant = ""
        self._resting: str | None = None
        self._rest_until_s = 0.0
        self._shared_until_s = 0.0
        self._thread = threading.Thread(target=self._run, name="tabor-ingest", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def offer(
        self, take: Callable[[Batcher], Outcome], size_bytes: int, *, tenant: str = "", wait_s: float = 0.0
    ) -> Future[Outcome]:
        """Queue an item; the future gives what `take` returned once the log has its samples.

        tenant: whose turn it takes; '' where there are no tenants.
        wait_s: how long to wait for a place in the queue.

        Raises:
            QueueFull: there is no place. LogUnavailable: the committer is closed.
        The future raises what `take` raises, or LogUnavailable.
        """
        future: Future[Outcome] = Future()
        # What has been queued is written; nobody can take it back.
        future.set_running_or_notify_cancel()
        with self._changed:
            if wait_s > 0 and self._is_full(size_bytes):
                self._waiters_for_room += 1
                self._changed.wait_for(lambda: self._closing or not self._is_full(size_bytes), wait_s)
                self._waiters_for_room -= 1
            if self._closing:
                raise LogUnavailable("ingest is closing")
            if self._is_full(size_bytes):
                raise QueueFull("too many writes are waiting for the log")
            if tenant and self._has_its_share(tenant, size_bytes):
                raise QueueFull(f"too many writes of tenant {tenant} are waiting for the log")
            span = None if tracing.tracer is None else tracing.tracer.context()
            self._waiting.push(tenant, size_bytes, _Item(take, tenant, future, span))
            self._open += 1
            if len(self._waiting) >= self._wanted:
                self._changed.notify_all()
        return future

    def close(self, timeout_s: float) -> bool:
        """Take no more, finish what is under way. Returns whether all of it was finished in time.

        What still waits after `timeout_s` fails with LogUnavailable.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        with self._changed:
            self._changed.wait_for(lambda: self._in_flight == 0, max(0.0, deadline - time.monotonic()))
            left = self._waiting.clear()
            finished = not left and self._in_flight == 0 and not self._thread.is_alive()
        for item in left:
            item.future.set_exception(LogUnavailable("ingest was closed before the log took the write"))
        return finished

    def _is_full(self, size_bytes: int) -> bool:
        # One item always has a place, however large.
        return len(self._waiting) >= self._config.max_queued_requests or (
            len(self._waiting) > 0 and self._waiting.size_bytes + size_bytes > self._config.max_queued_bytes
        )

    def _has_its_share(self, tenant: str, size_bytes: int) -> bool:
        """Whether a tenant has as much of the queue as one may."""
        n_items, n_bytes = self._waiting.waiting(tenant)
        return n_items * TENANT_SHARE >= self._config.max_queued_requests or (
            n_items > 0 and (n_bytes + size_bytes) * TENANT_SHARE > self._config.max_queued_bytes
        )

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: len(self._waiting) > 0 or self._closing)
                if not self._waiting:
                    return
                self._rest()
            self._settle_acknowledged()
            self._commit_group()

    def _settle_acknowledged(self) -> None:
        while self._acknowledged:
            self._batcher.acknowledged(self._acknowledged.popleft())

    def _rest(self) -> None:
        """While others send now and then, a tenant alone in the queue has half of the time. Holds the lock.

        So whoever comes next finds thread and log idle as often as not, and else waits for one small group.
        """
        while not self._closing and self._waiting.only_tenant() == self._resting:
            left_s = self._rest_until_s - time.monotonic()
            if left_s <= 0 and not self._in_flight:
                return
            self._awaits_log = True
            self._changed.wait(left_s if left_s > 0 else None)
            self._awaits_log = False

    def _commit_group(self) -> None:
        taken: list[tuple[Future[Outcome], Outcome]] = []
        began_s = time.monotonic()
        deadline = began_s + self._config.linger_s
        tenants: set[str] = set()
        self._batcher.begin(self._clock())
        most, is_shared = self._config.max_group_samples, False
        while self._batcher.n_rows < most:
            item = self._next_item(deadline, len(taken))
            if item is None:
                break
            tenants.add(item.tenant)
            is_shared = self._is_shared(item.tenant)
            most = self._config.shared_group_samples if is_shared else self._config.max_group_samples
            before = self._batcher.mark()
            try:
                outcome = item.take(self._batcher)
            except Exception as error:
                # The sender's fault or ours: this item gets it, the others go on.
                self._batcher.cut(before)
                self._closed(1)
                item.future.set_exception(error)
                continue
            if self._batcher.mark() == before:
                self._closed(1)
                item.future.set_result(outcome)
            else:
                taken.append((item.future, outcome))
                if item.span is not None and len(self._spans) < _MOST_LINKS:
                    self._spans.append(item.span)
        if taken:
            self._send(taken)
        self._resting = None
        if is_shared and len(tenants) == 1:
            now_s = time.monotonic()
            self._resting, self._rest_until_s = tenants.pop(), now_s + min(now_s - began_s, MOST_REST_S)

    def _is_shared(self, tenant: str) -> bool:
        """Whether other tenants than this one have sent something lately; groups are small then."""
        if not tenant:
            return False
        now_s = time.monotonic()
        if tenant != self._last_tenant:
            # Of any two that take turns, each has the other before it.
            if self._last_tenant:
                self._shared_until_s = now_s + SHARED_S
            self._last_tenant = tenant
        return now_s < self._shared_until_s

    def _next_item(self, deadline: float, n_taken: int) -> _Item[Outcome] | None:
        """The next item of the group, or None if the group, of `n_taken` so far, is to be sent now."""
        with self._changed:
            while not self._waiting:
                blocked = self._in_flight >= self._config.max_groups_in_flight
                if self._closing or not n_taken or not (blocked or self._is_worth_waiting(n_taken)):
                    return None
                remaining = deadline - time.monotonic()
                if remaining <= 0 and not blocked:
                    return None
                # Waking up for each item would cost more than to take the rest in one go.
                is_small = self._batcher.n_rows < self._config.small_group_samples
                self._wanted = max(1, min(self._senders - n_taken, _MOST_WANTED)) if is_small else 1
                self._awaits_log = True
                self._changed.wait(None if blocked else remaining)
                self._wanted, self._awaits_log = 1, False
            item = self._waiting.pop()
            if self._waiters_for_room:
                self._changed.notify_all()
        return item

    def _is_worth_waiting(self, n_taken: int) -> bool:
        """Whether more items would make the group cheaper and are likely to come."""
        if self._in_flight:
            return True
        return n_taken < self._senders and self._batcher.n_rows < self._config.small_group_samples

    def _send(self, taken: list[tuple[Future[Outcome], Outcome]]) -> None:
        with self._changed:
            self._awaits_log = True
            self._changed.wait_for(lambda: self._in_flight < self._config.max_groups_in_flight)
            self._awaits_log = False
            self._in_flight += 1
            self._senders = self._open
        self._settle_acknowledged()
        span = None
        if tracing.tracer is not None:
            span = tracing.tracer.begin("group commit", {"requests": len(taken)}, self._spans)
            self._spans = []
        started = time.perf_counter()
        try:
            group = self._batcher.seal(self._clock())
            sealed = time.perf_counter()
            future = self._log.append(group.records)
        except Exception as error:
            self._batcher.cut((0, (0, 0, 0)))
            if span is not None:
                span.end()
            self._landed(None, len(taken))
            self._answer(taken, error)
            return
        self._count(group, sealed - started, time.perf_counter() - sealed)

        def settle(done: Future[list[int]]) -> None:
            self._metrics.commit_seconds.observe(time.perf_counter() - sealed)
            error = done.exception()
            if span is not None:
                span.set_attribute("records", len(group.records))
                span.set_attribute("is_durable", error is None)
                span.end()
            if error is not None and not isinstance(error, TaborError):
                error = LogUnavailable(f"the log failed: {error}")
            # Declarations first, so that whoever has been answered finds them noted.
            self._landed(group if error is None else None, len(taken))
            self._answer(taken, error)

        future.add_done_callback(settle)

    def _landed(self, group: Group | None, n_items: int) -> None:
        with self._changed:
            if group is not None and (len(group.declared) or group.metadata):
                self._acknowledged.append(group)
            self._in_flight -= 1
            self._open -= n_items
            if self._awaits_log or self._closing:
                self._changed.notify_all()

    def _closed(self, n_items: int) -> None:
        with self._changed:
            self._open -= n_items

    def _answer(self, taken: list[tuple[Future[Outcome], Outcome]], error: BaseException | None) -> None:
        n_samples = sum(outcome.n_samples for _, outcome in taken)
        (self._metrics.samples if error is None else self._metrics.lost_samples).inc(n_samples)
        for future, outcome in taken:
            if error is None:
                future.set_result(outcome)
            else:
                future.set_exception(error)

    def _count(self, group: Group, encode_s: float, append_s: float) -> None:
        metrics = self._metrics
        metrics.encode_seconds.inc(encode_s)
        metrics.append_seconds.inc(append_s)
        metrics.groups.inc()
        metrics.records.inc(len(group.records))
        metrics.record_bytes.inc(sum(len(record.value) for record in group.records))
        metrics.declarations.inc(len(group.declared))
        metrics.series_active.set(group.table.n_slots)
