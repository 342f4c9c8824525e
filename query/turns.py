"""Whose query runs next: the tenants take turns, and none has more running than it may.

submit(tenants) ─► waiting, by tenant (bounded) ─► round robin ─► threads
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from common.errors import RetryableError

T = TypeVar("T")

WAITING_PER_RUNNING = 10
SHARED_S = 2.0
"""For so long after queries of two tenants have come one after the other both are taken to ask."""
MOST_REST_S = 1.0
NO_TENANTS = ("",)
"""Whose all queries are where there are no tenants."""


class TooManyQueries(RetryableError):
    """The queue of waiting queries is full. status: of HTTP."""

    status = 503


class TooManyQueriesOfTenant(TooManyQueries):
    """As many queries of one tenant wait as may."""

    status = 429


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    tenants: Sequence[str]
    work: Callable[[], Any]
    future: Future[Any]


class Turns:
    """Runs queries on threads of its own.

    max_running: at a time; ten times as many wait. limit_of: how many of a tenant may run at a time; ten times as
    many of it wait. A query of several tenants counts for each of them, and waits with the first. While others ask
    too, a tenant of which more wait pauses for as long as its last query took: it has half of the time at most.
    """

    def __init__(self, max_running: int, limit_of: Callable[[str], int]) -> None:
        self._max_running = max_running
        self._limit_of = limit_of
        self._threads = ThreadPoolExecutor(max_running, thread_name_prefix="query")
        self._changed = threading.Condition()
        # Tenants in the order of their turns; none whose queue is empty.
        self._waiting: dict[str, deque[_Job]] = {}
        self._n_waiting = 0
        self._n_running = 0
        self._running: Counter[str] = Counter()
        self._closed = False
        self._last = ""
        self._shared_until_s = 0.0

    def submit(self, tenants: Sequence[str], work: Callable[[], T]) -> Future[T]:
        """Have `work` done when its turn comes.

        Raises:
            TooManyQueriesOfTenant, TooManyQueries: too many wait already. RetryableError: closed.
        """
        job = _Job(tenants, work, Future())
        first = tenants[0]
        with self._changed:
            if self._closed:
                raise RetryableError("the server is stopping")
            # Each that would run at once has a place, and those that wait.
            if self._n_waiting + self._n_running >= self._max_running * (1 + WAITING_PER_RUNNING):
                raise TooManyQueries(
                    f"{self._max_running} queries are running and {WAITING_PER_RUNNING} times as many wait "
                    "(--query-max-concurrency)"
                )
            limit = self._limit_of(first)
            if first and len(self._waiting.get(first, ())) >= limit * WAITING_PER_RUNNING:
                raise TooManyQueriesOfTenant(
                    f"{limit} queries of tenant {first} may run at a time (max_concurrent_queries), and "
                    f"{WAITING_PER_RUNNING} times as many wait"
                )
            if first != self._last:
                if self._last:
                    self._shared_until_s = time.monotonic() + SHARED_S
                self._last = first
            self._waiting.setdefault(first, deque()).append(job)
            self._n_waiting += 1
            self._start()
        return job.future

    def close(self, timeout_s: float) -> None:
        """Drop what waits; wait for what runs, as long as that takes no more than the time given."""
        with self._changed:
            self._closed = True
            dropped = [job for jobs in self._waiting.values() for job in jobs]
            self._waiting.clear()
            self._n_waiting = 0
        for job in dropped:
            job.future.cancel()
        self._threads.shutdown(wait=False)
        with self._changed:
            self._changed.wait_for(lambda: self._n_running == 0, timeout_s)

    def _start(self) -> None:
        """Give threads what may run now. The lock is held."""
        while self._n_running < self._max_running:
            job = self._next()
            if job is None:
                return
            self._n_running += 1
            self._running.update(job.tenants)
            self._threads.submit(self._run, job)

    def _rest(self, tenant: str, took_s: float) -> None:
        """Keep the place of a tenant's query for a while longer, if others ask too. Under the lock."""
        if tenant in self._waiting and time.monotonic() < self._shared_until_s:
            self._changed.wait_for(lambda: self._closed, min(took_s, MOST_REST_S))

    def _next(self) -> _Job | None:
        for tenant, jobs in self._waiting.items():
            if all(self._running[one] < self._limit_of(one) for one in jobs[0].tenants):
                job = jobs.popleft()
                self._n_waiting -= 1
                # The others come first now.
                del self._waiting[tenant]
                if jobs:
                    self._waiting[tenant] = jobs
                return job
        return None

    def _run(self, job: _Job) -> None:
        began_s = time.monotonic()
        try:
            if job.future.set_running_or_notify_cancel():
                try:
                    found = job.work()
                except BaseException as error:
                    job.future.set_exception(error)
                else:
                    job.future.set_result(found)
        finally:
            with self._changed:
                self._rest(job.tenants[0], time.monotonic() - began_s)
                self._n_running -= 1
                self._running.subtract(job.tenants)
                # Tenants of whom nothing runs are forgotten.
                self._running += Counter()
                if not self._closed:
                    self._start()
                self._changed.notify_all()
