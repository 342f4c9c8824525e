"""The PromQL engine: queries in, matrices out."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from common.errors import CallerError
from common.labels import StringPool
from common.store import SeriesStore
from query.engine.budget import Budget, QueryCancelled, QueryTimeout
from query.engine.cells import HistogramPool
from query.engine.evaluator import Evaluator
from query.engine.frame import Frame
from query.engine.labeling import empty_table, order
from query.engine.merging import cut_windows, settle
from query.engine.selecting import Sources
from query.engine.values import Annotations, RangeVector, Scalar, String, Value, Vector
from query.promql.ast import Expr, MatrixSelector, Paren, StringLiteral, Subquery
from query.promql.durations import resolve
from query.promql.parser import parse
from query.pushdown.asking import About, Pushdown, push_down

__all__ = [
    "Engine",
    "EngineConfig",
    "QueryCancelled",
    "QueryResult",
    "QueryStats",
    "QueryTimeout",
    "WrongRange",
]


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """max_samples limits both the samples read and the cells of any one matrix, max_series the series read.

    strict: see `parse`. pushdown: whether a store's nodes evaluate what they can.
    """

    lookback_ms: int = 300_000
    max_samples: int = 50_000_000
    max_series: int = 1_000_000
    default_subquery_step_ms: int = 60_000
    timeout_s: float = 120.0
    strict: bool = False
    pushdown: bool = True


@dataclass(frozen=True, slots=True)
class QueryStats:
    """series and samples read from storage; the others as `Budget` has them."""

    series: int = 0
    samples: int = 0
    peak_samples: int = 0
    samples_at_steps: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class QueryResult:
    """An answer in its final form: names removed, no two series with equal labels, none without a sample.

    kind 'vector': an instant query; the series are in the order of the result.
    kind 'matrix': of a range query, a Vector sorted by labels; of an instant query for a range vector, a
    RangeVector sorted by labels, with its samples as stored.
    """

    kind: Literal["vector", "matrix", "scalar", "string"]
    steps: NDArray[np.int64]
    value: Value
    warnings: list[str] = field(default_factory=list)
    infos: list[str] = field(default_factory=list)
    stats: QueryStats = field(default_factory=QueryStats)


_REMEMBERED_LENGTH = 4096
"""Characters up to which the tree of a query is kept for the next time."""


class WrongRange(CallerError):
    """A range query needs steps, and an expression with one number or one vector at each of them."""


class Engine:
    """Evaluates queries against a store. Any number of threads may use it at once.

    Of a store that is `query.pushdown.asking.Pushdown` the nodes evaluate what they can.
    """

    def __init__(self, store: SeriesStore, config: EngineConfig) -> None:
        self._store = store
        self._config = config
        self._nodes = cast(Pushdown, store) if config.pushdown and _can_push_down(type(store)) else None

    def instant(
        self, query: str, time_ms: int, *, lookback_ms: int | None = None, budget: Budget | None = None
    ) -> QueryResult:
        """Evaluate a query at one time, within a budget or else what the configuration allows.

        Raises:
            ParseError, DurationError: the query is not PromQL.
            EvalError: it cannot be evaluated.
            TooManySamples, TooManySeries, QueryTimeout, QueryCancelled: it broke a limit or was stopped.
        """
        budget = budget or self.budget()
        steps = np.array([time_ms], dtype=np.int64)
        expr = _parse(query, time_ms, time_ms, 0, self._config.strict)
        budget.stages.end("parse")
        return self.evaluate(expr, query, steps, 0, lookback_ms, budget)

    def range(
        self,
        query: str,
        start_ms: int,
        end_ms: int,
        step_ms: int,
        *,
        lookback_ms: int | None = None,
        budget: Budget | None = None,
    ) -> QueryResult:
        """Evaluate a query at start_ms, start_ms + step_ms ... up to and including end_ms.

        Raises as `instant`; also WrongRange.
        """
        if end_ms < start_ms or step_ms <= 0:
            raise WrongRange("a range query needs a positive step, and an end that is not before its start")
        budget = budget or self.budget()
        steps = np.arange(start_ms, end_ms + 1, step_ms, dtype=np.int64)
        expr = _parse(query, start_ms, end_ms, step_ms, self._config.strict)
        budget.stages.end("parse")
        return self.evaluate(expr, query, steps, step_ms, lookback_ms, budget, end_ms=end_ms)

    def budget(self) -> Budget:
        """What a query may use that comes without a budget of its own."""
        config = self._config
        return Budget(config.max_samples, config.max_series, config.timeout_s)

    def evaluate(
        self,
        expr: Expr,
        query: str,
        steps: NDArray[np.int64],
        step_ms: int,
        lookback_ms: int | None = None,
        budget: Budget | None = None,
        *,
        end_ms: int | None = None,
    ) -> QueryResult:
        """Evaluate a parsed query whose durations are resolved; step_ms 0 makes it an instant query.

        query: the text that `expr` is the tree of; if it is empty, nothing is pushed down.
        """
        config = self._config
        lookback_ms = lookback_ms or config.lookback_ms
        budget = budget or self.budget()
        if budget.count_steps:
            budget.samples_at_steps = np.zeros(len(steps), dtype=np.int64)
        annotations = Annotations(query)
        frame = Frame(steps, step_ms, int(steps[0]), int(steps[-1]) if end_ms is None else end_ms, step_ms)
        histograms = HistogramPool()
        about = lookback_ms, config.default_subquery_step_ms
        sources = Sources(self._store, budget, histograms, annotations, *about)
        if self._nodes is not None and query:
            asked = About(query, config.strict, *about)
            budget.stages.end("plan")
            sources.use(push_down(self._nodes, expr, frame, asked, budget, annotations))
            budget.stages.end("nodes")
        sources.plan(expr, frame)
        budget.stages.end("plan")
        pool = sources.fetch()
        budget.stages.end("select")
        if budget.samples_at_steps is not None:
            budget.samples_at_steps += sources.samples_at(frame)
        evaluator = Evaluator(sources, pool, histograms, budget, annotations, *about)
        value = evaluator.evaluate(expr, frame)
        budget.check()
        kind, value = _final(value, is_range=step_ms > 0)
        if isinstance(value, Vector | RangeVector):
            value = histograms.unfolded(value)
        budget.stages.end("compute")
        stats = QueryStats(budget.series, budget.samples, budget.peak_samples, budget.samples_at_steps)
        return QueryResult(kind, steps, value, list(annotations.warnings), list(annotations.infos), stats)


def parsed(query: str, strict: bool) -> Expr:
    """The tree of a query. Dashboards ask the same again and again; trees do not change."""
    return _remembered(query, strict) if len(query) <= _REMEMBERED_LENGTH else parse(query, strict=strict)


@lru_cache(maxsize=64)
def _can_push_down(store: type[SeriesStore]) -> bool:
    """Remembered, for looking at a Protocol's methods takes as long as parsing a query."""
    return issubclass(store, Pushdown)


@lru_cache(maxsize=1024)
def _remembered(query: str, strict: bool) -> Expr:
    return parse(query, strict=strict)


def _parse(query: str, start_ms: int, end_ms: int, step_ms: int, strict: bool) -> Expr:
    expr = resolve(parsed(query, strict), start_ms, end_ms, step_ms)
    if step_ms:
        bare = expr
        while isinstance(bare, Paren):
            bare = bare.expr
        if isinstance(bare, StringLiteral | MatrixSelector | Subquery):
            found = "string" if isinstance(bare, StringLiteral) else "range vector"
            raise WrongRange(
                f'invalid expression type "{found}" for range query, must be Scalar or instant Vector'
            )
    return expr


def _final(value: Value, *, is_range: bool) -> tuple[Literal["vector", "matrix", "scalar", "string"], Value]:
    if isinstance(value, String):
        return "string", value
    if isinstance(value, RangeVector):
        cut = cut_windows(value)
        return "matrix", _sorted_ranges(cut)
    if isinstance(value, Scalar):
        if not is_range:
            return "scalar", value
        value = _as_vector(value)
    value = settle(value)
    if not is_range:
        return "vector", value
    rows = order(value.labels)
    return "matrix", Vector(
        value.labels.take(rows), value.values[rows], value.present[rows], value.drop_name[rows]
    )


def _as_vector(scalar: Scalar) -> Vector:
    values = scalar.values.reshape(1, -1)
    present = np.ones(values.shape, dtype=np.bool_)
    return Vector(empty_table(StringPool(), 1), values, present, np.zeros(1, dtype=np.bool_))


def _sorted_ranges(value: RangeVector) -> RangeVector:
    rows = order(value.labels)
    counts = np.diff(value.offsets)[rows]
    offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)))
    moved = np.arange(offsets[-1]) + np.repeat(value.offsets[rows] - offsets[:-1], counts)
    return RangeVector(
        value.labels.take(rows),
        offsets,
        value.timestamps[moved],
        value.values[moved],
        value.ends,
        value.range_ms,
        value.drop_name[rows],
    )
