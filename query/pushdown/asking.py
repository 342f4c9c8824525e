"""The query server's side of pushdown: asks nodes to evaluate pieces of a query, and puts together what they say.

pieces() ─► one evaluation each ─► Pushdown.evaluate ─► StepMatrix of each node ─► joined or merged ─► Vector
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from common.wire.evaluation import Evaluation, NotEvaluated
from common.wire.matrices import StepMatrix
from query.engine.budget import Budget, QueryTimeout
from query.engine.cells import floats_only
from query.engine.folding import COLUMNS, Folded, finished, merge, nothing
from query.engine.frame import Frame
from query.engine.labeling import Rows, number
from query.engine.selecting import Place
from query.engine.values import Annotations, EvalError, Vector
from query.joining import join_tables
from query.promql.ast import Aggregate, Expr
from query.pushdown.planning import Piece, columns_of, pieces


@runtime_checkable
class Pushdown(Protocol):
    """A store whose nodes evaluate expressions over the series that they have; no series is with two of them."""

    def evaluate(
        self,
        evaluation: Evaluation,
        n_columns: int,
        max_samples: int,
        max_series: int,
        check: Callable[[], None],
    ) -> list[StepMatrix]:
        """What each node has, with so many numbers a cell (see `columns_of`).

        check: called now and then; what it raises ends the evaluation.

        Raises:
            NotEvaluated: a node says why it does not.
            TooManySamples, TooManySeries: a node alone would read more than that.
            CallerError, RetryableError: as reads.
        """


@dataclass(frozen=True, slots=True)
class About:
    """A query, as its nodes have to know it."""

    query: str
    strict: bool
    lookback_ms: int
    subquery_step_ms: int


def push_down(
    store: Pushdown, expr: Expr, frame: Frame, about: About, budget: Budget, annotations: Annotations
) -> dict[Place, Vector]:
    """The values of all pieces of a query that nodes can evaluate, each in a string pool of its own.

    Of topk and bottomk these are the candidates.

    Raises:
        EvalError, QueryTimeout, TooManySamples, TooManySeries: as if it were evaluated here.
    """
    found: dict[Place, Vector] = {}
    # What stands in a query twice is asked once, unless messages say at which of the places something is.
    known: dict[tuple[Expr, tuple[int, int, int]], Vector] = {}
    for piece in pieces(expr, frame, budget, about.lookback_ms, about.subquery_step_ms):
        key = piece.frame.key()
        if (piece.expr, key) in known:
            found[id(piece.expr), *key] = known[piece.expr, key]
            continue
        parts = _ask(store, piece, about, budget)
        if parts is None:
            continue
        budget.note(sum(part.samples for part in parts), sum(part.series for part in parts))
        for part in parts:
            annotations.extend(part.warnings, part.infos)
            _count_steps(budget, part, piece.frame, frame)
        budget.reserve(sum(len(part.labels) for part in parts), len(piece.frame.steps))
        vector = found[id(piece.expr), *key] = _joined(piece.expr, len(piece.frame.steps), parts)
        if not any(part.warnings or part.infos for part in parts):
            known[piece.expr, key] = vector
    return found


def _ask(store: Pushdown, piece: Piece, about: About, budget: Budget) -> list[StepMatrix] | None:
    """What the nodes have; None if they must be asked for samples instead."""
    frame, n_columns = piece.frame, columns_of(piece.expr)
    assert n_columns is not None
    budget.check()
    evaluation = Evaluation(
        query=about.query,
        strict=about.strict,
        path=piece.path,
        first_ms=int(frame.steps[0]),
        step_ms=frame.step_ms,
        n_steps=len(frame.steps),
        query_start_ms=frame.query_start_ms,
        query_end_ms=frame.query_end_ms,
        query_step_ms=frame.query_step_ms,
        lookback_ms=about.lookback_ms,
        subquery_step_ms=about.subquery_step_ms,
        samples_read=budget.samples,
        series_read=budget.series,
        timeout_s=budget.left_s(),
        count_steps=budget.count_steps,
    )
    try:
        return store.evaluate(evaluation, n_columns, budget.max_samples, budget.max_series, budget.check)
    except NotEvaluated as error:
        if error.reason == "evaluation":
            raise EvalError(str(error)) from None
        if error.reason == "timeout":
            raise QueryTimeout(str(error)) from None
        return None


def _count_steps(budget: Budget, part: StepMatrix, at: Frame, frame: Frame) -> None:
    """Add what a node looked at to the steps of the query, as `Sources.samples_at` does."""
    if budget.samples_at_steps is None or part.samples_at_steps is None:
        return
    if len(at.steps) == len(frame.steps) or (len(at.steps) == 1 and at.steps[0] == frame.steps[0]):
        # What is the same at all steps is evaluated at the first.
        budget.samples_at_steps += np.array(part.samples_at_steps, dtype=np.int64)
    else:
        budget.samples_at_steps[-1] += sum(part.samples_at_steps)


def _joined(expr: Expr, n_steps: int, parts: Sequence[StepMatrix]) -> Vector:
    labels = join_tables([part.labels for part in parts])
    dropped = np.concatenate([part.dropped for part in parts])
    op = expr.op if isinstance(expr, Aggregate) else None
    if op not in COLUMNS and op != "count_values":
        present = np.concatenate([part.present for part in parts])
        return Vector(labels, np.concatenate([_laid_out(part)[0] for part in parts]), present, dropped)
    group, firsts = number(labels)
    # Counts of equal values are added up like counts of members.
    folded = nothing("count" if op == "count_values" else op, len(firsts), n_steps)
    at = 0
    for part in parts:
        rows = group[at : at + len(part.labels)]
        at += len(part.labels)
        merge(folded, rows, Folded(folded.op, part.present, _laid_out(part)))
    values, present = finished(folded)
    return Vector(labels.take(firsts), values, present, _any_of(group, len(firsts), dropped))


def _laid_out(part: StepMatrix) -> tuple[NDArray[np.float64], ...]:
    """The columns as matrices."""
    found = []
    for column in part.columns:
        matrix = np.zeros(part.present.shape)
        matrix[part.present] = floats_only(column)
        found.append(matrix)
    return tuple(found)


def _any_of(group: Rows, n_groups: int, flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
    out = np.zeros(n_groups, dtype=np.bool_)
    out[group[flags]] = True
    return out
