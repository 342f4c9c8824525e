"""Runs queries: consistency, concurrency, deadlines; the HTTP layer only translates."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, TypeVar

from common import request_ids, tally
from common.access import principal_of
from common.errors import CallerError, RetryableError
from common.store import SeriesStore
from common.tenants import tenants_of
from query.config import QueryConfig
from query.engine.budget import Budget
from query.engine.engine import Engine, EngineConfig, QueryResult
from query.metrics import QUERIES_RUNNING, QUERY_SECONDS
from query.running import NOBODY, Asked, Queries
from query.tenants import of_tenants

if TYPE_CHECKING:
    from fastapi import Request

    from query.params import Parameters

T = TypeVar("T")

CLOSE_S = 1.5
"""How long queries under way may take to notice that the server stops."""
_WAITING_PER_RUNNING = 10


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a query is to read.

    partial: whether it may go without partitions that nobody can read, and say so.
    tenants: whose series it reads; None for all there are, where tenants are switched off.
    """

    consistency: str
    partial: bool = False
    asked: Asked = NOBODY
    tenants: tuple[str, ...] | None = None


class TooManyQueries(RetryableError):
    """The queue of waiting queries is full."""


class QueryService:
    """Owns the threads on which queries run.

    At most `max_concurrency` run at a time and ten times as many wait; more are refused at once.
    """

    def __init__(self, store: SeriesStore, config: QueryConfig) -> None:
        self.config = config
        self._store = store
        self._stopping = threading.Event()
        self._engine_config = EngineConfig(
            lookback_ms=config.lookback_ms,
            max_samples=config.max_samples,
            max_series=config.max_series,
            timeout_s=config.timeout_s,
            strict=config.promql_strict,
        )
        self.queries = Queries(config.slow_query_s)
        self._threads = ThreadPoolExecutor(config.max_concurrency, thread_name_prefix="query")
        self._slots = BoundedSemaphore(config.max_concurrency * (1 + _WAITING_PER_RUNNING))

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Stop running queries and drop waiting ones; one in the midst of a kernel is left to itself at last."""
        self._stopping.set()
        self._threads.shutdown(wait=False, cancel_futures=True)
        deadline = time.monotonic() + timeout_s
        for _ in range(self.config.max_concurrency * (1 + _WAITING_PER_RUNNING)):
            if not self._slots.acquire(timeout=max(0.0, deadline - time.monotonic())):
                return

    def instant(
        self,
        query: str,
        time_ms: int,
        *,
        lookback_ms: int | None,
        timeout_s: float | None,
        wanted: Wanted,
        finish: Callable[[QueryResult, Budget], T],
        cancelled: threading.Event | None = None,
    ) -> Future[T]:
        """What `finish` makes of the result, on the query's thread; setting `cancelled` ends it early."""

        def work(budget: Budget) -> T:
            result = self._engine(wanted).instant(query, time_ms, lookback_ms=lookback_ms, budget=budget)
            return finish(result, budget)

        return self._run(work, timeout_s, wanted, cancelled)

    def range(
        self,
        query: str,
        start_ms: int,
        end_ms: int,
        step_ms: int,
        *,
        lookback_ms: int | None,
        timeout_s: float | None,
        wanted: Wanted,
        finish: Callable[[QueryResult, Budget], T],
        cancelled: threading.Event | None = None,
    ) -> Future[T]:
        """What `finish` makes of the result, on the query's thread; setting `cancelled` ends it early."""

        def work(budget: Budget) -> T:
            times = start_ms, end_ms, step_ms
            result = self._engine(wanted).range(query, *times, lookback_ms=lookback_ms, budget=budget)
            return finish(result, budget)

        return self._run(work, timeout_s, wanted, cancelled)

    def run(
        self,
        work: Callable[[SeriesStore, Budget], T],
        wanted: Wanted,
        cancelled: threading.Event | None = None,
    ) -> Future[T]:
        """What `work` makes of the store, on a query's thread, within its limits; `cancelled` as in `instant`."""
        store = of_tenants(self._store, wanted.tenants)
        return self._run(lambda budget: work(store, budget), None, wanted, cancelled)

    def wanted_of(self, parameters: Parameters, request: Request) -> Wanted:
        """What a request asks for, by header or parameter, and for whom. Raises CallerError, TenantRefused."""
        consistency = request.headers.get("x-read-consistency") or parameters.get("consistency")
        partial = parameters.get("partial_response") or "false"
        if partial not in ("true", "false"):
            raise CallerError(f"partial_response is 'true' or 'false', not {partial!r}")
        tenants = tenants_of(request.scope, self.config.tenancy)
        client, route = request.client, request.scope.get("route")
        asked = Asked(
            route=getattr(route, "path", ""),
            text=parameters.get("query") or " ".join(parameters.all("match[]")),
            client=f"{client.host}:{client.port}" if client is not None else "",
            principal=principal_of(request.scope).name,
            tenant="|".join(tenants or ()),
            request_id=request.scope.get(request_ids.SCOPE_KEY, ""),
            stats=parameters.get("stats"),
        )
        return Wanted(consistency or self.config.consistency, partial == "true", asked, tenants)

    def _engine(self, wanted: Wanted) -> Engine:
        return Engine(of_tenants(self._store, wanted.tenants), self._engine_config)

    def _run(
        self,
        work: Callable[[Budget], T],
        timeout_s: float | None,
        wanted: Wanted,
        cancelled: threading.Event | None,
    ) -> Future[T]:
        """Run work(its limits) on a query thread; time spent waiting counts against the deadline."""
        consistency = wanted.consistency
        if consistency not in ("strong", "eventual"):
            raise CallerError(f"consistency is 'strong' or 'eventual', not {consistency!r}")
        limit_s = min(timeout_s or self.config.timeout_s, self.config.timeout_s)
        limits = self.config.max_samples, self.config.max_series, limit_s
        stop = cancelled or threading.Event()
        budget = Budget(*limits, stop, self._stopping)
        budget.count_steps = bool(wanted.asked.stats)
        if not self._slots.acquire(blocking=False):
            raise TooManyQueries(
                f"{self.config.max_concurrency} queries are running and {_WAITING_PER_RUNNING} times as many wait "
                "(--query-max-concurrency)"
            )

        running = self.queries.begin(wanted.asked, budget, stop)

        def job() -> T:
            budget.stages.end("wait")
            running.runs = True
            budget.tally = tally.begin()
            with QUERIES_RUNNING.track_inprogress(), QUERY_SECONDS.time():
                # Who asked may have gone away while the query waited for its turn.
                budget.check()
                if consistency == "strong":
                    self._store.wait_caught_up(budget.left_s())
                    budget.stages.end("catch_up")
                if wanted.partial:
                    budget.missing = self._store.allow_partial()
                return work(budget)

        try:
            # What a store remembers of one query, such as how far it must have read, is not for the next one; the
            # id of the request goes along.
            future = self._threads.submit(contextvars.copy_context().run, job)
        except RuntimeError as error:
            self._slots.release()
            self.queries.end(running, error)
            raise RetryableError("the server is stopping") from None

        def ended(done: Future[T]) -> None:
            self._slots.release()
            self.queries.end(running, CancelledError() if done.cancelled() else done.exception())

        future.add_done_callback(ended)
        return future
