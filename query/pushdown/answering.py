"""The storage node's side of pushdown: evaluates part of a query over the partitions that it is asked for.

storage_node.reads_http ─► evaluate(store of these partitions) ─► engine ─► StepMatrix ─► frames
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import numpy as np

from common.errors import CallerError, RetryableError
from common.labels import LabelTable, StringPool
from common.store import SeriesStore
from common.wire.evaluation import Evaluation, NotEvaluated
from common.wire.matrices import StepMatrix, matrix_frames
from common.wire.requests import ReadRequest
from query.engine.aggregation import fold_part
from query.engine.budget import Budget, QueryCancelled, QueryTimeout
from query.engine.cells import HistogramPool
from query.engine.engine import parsed
from query.engine.evaluator import Evaluator
from query.engine.folding import COLUMNS
from query.engine.frame import Frame
from query.engine.labeling import adopt
from query.engine.selecting import Sources
from query.engine.values import Annotations, EvalError, Vector
from query.promql.ast import Aggregate, Expr, children
from query.promql.durations import resolve
from query.pushdown.planning import columns_of
from query.tenants import of_tenants


def evaluate(store: SeriesStore, asked: ReadRequest, ends: Sequence[threading.Event]) -> Iterator[bytes]:
    """The answer to a request, as frames; ends early if one of the events is set.

    Raises:
        NotEvaluated, TooManySamples, TooManySeries, CallerError: for whoever asked the query.
        RetryableError: another node may do better.
    """
    if asked.evaluation is None:
        raise CallerError("'evaluate' takes an evaluation")
    budget = Budget(asked.max_samples, asked.max_series, asked.evaluation.timeout_s, *ends)
    try:
        mine = of_tenants(store, asked.evaluation.tenants)
        return matrix_frames(_evaluated(mine, asked.evaluation, budget))
    except EvalError as error:
        raise NotEvaluated("evaluation", str(error)) from None
    except QueryTimeout as error:
        raise NotEvaluated("timeout", str(error)) from None
    except QueryCancelled:
        raise RetryableError("the evaluation was ended") from None


def _evaluated(store: SeriesStore, asked: Evaluation, budget: Budget) -> StepMatrix:
    budget.note(asked.samples_read, asked.series_read)
    budget.reserve(1, asked.n_steps)
    about_query = asked.query_start_ms, asked.query_end_ms, asked.query_step_ms
    expr = _at(resolve(parsed(asked.query, asked.strict), *about_query), asked.path)
    steps = asked.first_ms + asked.step_ms * np.arange(asked.n_steps, dtype=np.int64)
    frame = Frame(steps, asked.step_ms, *about_query)
    annotations, histograms = Annotations(asked.query), HistogramPool()
    about = asked.lookback_ms, asked.subquery_step_ms
    sources = Sources(store, budget, histograms, annotations, *about)
    sources.plan(expr, frame)
    pool = sources.fetch()
    at_steps = sources.samples_at(frame).tolist() if asked.count_steps else None
    evaluator = Evaluator(sources, pool, histograms, budget, annotations, *about)
    if isinstance(expr, Aggregate) and expr.op in COLUMNS:
        inner = evaluator.evaluate(expr.expr, frame)
        assert isinstance(inner, Vector)
        found = fold_part(expr, inner, histograms, annotations, budget)
        if found is None:
            raise _histograms()
        labels, dropped, folded = found
        present, matrices = folded.present, folded.columns
    else:
        vector = evaluator.evaluate(expr, frame)
        assert isinstance(vector, Vector)
        if histograms.without_histograms(vector)[1] is not None:
            raise _histograms()
        labels, dropped, present, matrices = vector.labels, vector.drop_name, vector.present, (vector.values,)
    budget.check()
    rows = np.flatnonzero(present.any(axis=1))
    present = present[rows]
    columns = tuple(matrix[rows][present] for matrix in matrices)
    read = budget.series - asked.series_read, budget.samples - asked.samples_read
    messages = annotations.warnings, annotations.infos
    return StepMatrix(_sendable(labels.take(rows)), dropped[rows], present, columns, *messages, *read, at_steps)


def _at(expr: Expr, path: Sequence[int]) -> Expr:
    """The node of a tree at the end of a path, if nodes are to evaluate it."""
    for i in path:
        below = children(expr)
        if not 0 <= i < len(below):
            raise CallerError("'path' leads out of the expression")
        expr = below[i]
    if columns_of(expr) is None:
        raise CallerError("this expression is not for storage nodes to evaluate")
    return expr


def _sendable(table: LabelTable) -> LabelTable:
    """The same labels in a pool that is no fork."""
    if len(table) and table.names and table.codes.min() < 0:
        return adopt(table, StringPool())
    return LabelTable(table.pool.origin(), table.names, table.codes)


def _histograms() -> NotEvaluated:
    return NotEvaluated("histograms", "there are native histograms in the result")
