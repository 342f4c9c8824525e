"""Runs queries: consistency, concurrency, deadlines; the HTTP layer only translates."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from common import request_ids, tally, tracing
from common.access import principal_of
from common.errors import CallerError, RetryableError
from common.limits import Limits
from common.parallel import n_cores
from common.store import SeriesStore, TooManySamples
from common.tenants import tenants_of
from query.config import QueryConfig
from query.engine.budget import Budget
from query.engine.engine import Engine, EngineConfig, QueryResult
from query.metrics import QUERIES_RUNNING, QUERY_SECONDS
from query.running import NOBODY, Asked, Queries, shortened
from query.tenants import of_tenants
from query.turns import NO_TENANTS, Turns

if TYPE_CHECKING:
    from fastapi import Request

    from query.params import Parameters

T = TypeVar("T")

CLOSE_S = 1.5
"""How long queries under way may take to notice that the server stops."""


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


class QueryService:
    """Owns the threads on which queries run.

    At most `max_concurrency` run at a time and ten times as many wait; more are refused at once. Tenants take
    turns.
    """

    def __init__(self, store: SeriesStore, config: QueryConfig, limits: Limits | None = None) -> None:
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
        self._limits = Limits(config.tenant_limits) if limits is None else limits
        self._default_concurrency = max(1, n_cores() // 2)
        self._turns = Turns(config.max_concurrency, self._concurrency_of)

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Stop running queries and drop waiting ones; one in the midst of a kernel is left to itself at last."""
        self._stopping.set()
        self._turns.close(timeout_s)

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

    def wanted_of(self, parameters: Parameters, request: Request, *, of_all: bool = False) -> Wanted:
        """What a request asks for, by header or parameter, and for whom. Raises CallerError, TenantRefused.

        of_all: it is read from all tenants, whoever asks.
        """
        consistency = request.headers.get("x-read-consistency") or parameters.get("consistency")
        partial = parameters.get("partial_response") or "false"
        if partial not in ("true", "false"):
            raise CallerError(f"partial_response is 'true' or 'false', not {partial!r}")
        tenants = None if of_all else tenants_of(request.scope, self.config.tenancy)
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

    def _concurrency_of(self, tenant: str) -> int:
        """How many queries of a tenant run at a time: by default half of what the machine can compute at once."""
        if not tenant:
            return self.config.max_concurrency
        limit = self._limits.of(tenant).max_concurrent_queries
        return limit if limit is not None else self._default_concurrency

    def _samples_of(self, wanted: Wanted) -> tuple[int, str | None]:
        """How many samples a query may touch, and the tenant whose limit that is."""
        limits = [(self._limits.of(tenant).max_query_samples, tenant) for tenant in wanted.tenants or ()]
        lowest, tenant = min(
            ((limit, tenant) for limit, tenant in limits if limit is not None), default=(None, None)
        )
        if lowest is None or lowest >= self.config.max_samples:
            return self.config.max_samples, None
        return lowest, tenant

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
        max_samples, limited = self._samples_of(wanted)
        limits = max_samples, self.config.max_series, limit_s
        stop = cancelled or threading.Event()
        budget = Budget(*limits, stop, self._stopping)
        budget.count_steps = bool(wanted.asked.stats)
        running = self.queries.begin(wanted.asked, budget, stop)

        def job() -> T:
            budget.stages.end("wait")
            running.runs = True
            budget.tally = tally.begin()
            about = {"db.query.text": shortened(running.asked.text), "tabor.query_id": running.id}
            with tracing.span("query", **about), QUERIES_RUNNING.track_inprogress(), QUERY_SECONDS.time():
                # Who asked may have gone away while the query waited for its turn.
                budget.check()
                if consistency == "strong":
                    self._store.wait_caught_up(budget.left_s())
                    budget.stages.end("catch_up")
                if wanted.partial:
                    budget.missing = self._store.allow_partial()
                try:
                    return work(budget)
                except TooManySamples as error:
                    if limited is None:
                        raise
                    raise TooManySamples(
                        f"the query selects more than {max_samples} samples, the limit of tenant {limited} "
                        "(max_query_samples); narrow its matchers or its time range"
                    ) from error

        # What a store remembers of one query, such as how far it must have read, is not for the next one; the id
        # of the request goes along.
        context = contextvars.copy_context()
        try:
            future = self._turns.submit(wanted.tenants or NO_TENANTS, lambda: context.run(job))
        except RetryableError as error:
            self.queries.end(running, error)
            raise

        def ended(done: Future[T]) -> None:
            self.queries.end(running, CancelledError() if done.cancelled() else done.exception())

        future.add_done_callback(ended)
        return future
