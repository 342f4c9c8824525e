"""Evaluates a syntax tree, a whole matrix at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from common.kernels.jit import for_kernels
from common.labels import StringPool
from query.engine.aggregation import aggregate
from query.engine.binary import binary
from query.engine.budget import Budget
from query.engine.cells import HistogramPool
from query.engine.constancy import Constancy
from query.engine.frame import Frame, milliseconds
from query.engine.functions import FUNCTIONS, TAKES_HISTOGRAMS, ignored
from query.engine.histogram_selecting import each_reset_once
from query.engine.info import enriched, info_selector
from query.engine.labeling import adopt, empty_table
from query.engine.merging import merge_rows
from query.engine.native.ops import negate
from query.engine.selecting import Sources
from query.engine.values import Annotations, Context, EvalError, RangeVector, Scalar, String, Value, Vector
from query.promql.ast import (
    Aggregate,
    Binary,
    Call,
    Expr,
    MatrixSelector,
    NumberLiteral,
    Paren,
    StringLiteral,
    Subquery,
    Unary,
    VectorSelector,
)

_EXTENDED = {
    "anchored": ("changes", "delta", "increase", "rate", "resets"),
    "smoothed": ("delta", "increase", "rate"),
}
"""Functions that know what to do with an extended range."""

_ABOUT_THE_QUERY: dict[str, Callable[[Frame], int]] = {
    "start": lambda frame: frame.query_start_ms,
    "end": lambda frame: frame.query_end_ms,
    "range": lambda frame: frame.query_end_ms - frame.query_start_ms,
    "step": lambda frame: frame.query_step_ms,
}
"""Functions whose result, in ms here, is the same in all subqueries."""


class Evaluator:
    """One query. `sources` has been fetched; `pool` is what it returned."""

    def __init__(
        self,
        sources: Sources,
        pool: StringPool,
        histograms: HistogramPool,
        budget: Budget,
        annotations: Annotations,
        lookback_ms: int,
        subquery_step_ms: int,
    ) -> None:
        self._sources = sources
        self._pool = pool
        self._histograms = histograms
        self._budget = budget
        self._annotations = annotations
        self._lookback_ms = lookback_ms
        self._subquery_step_ms = subquery_step_ms
        self._constancy = Constancy()

    def evaluate(self, expr: Expr, frame: Frame) -> Value:
        """The value of an expression at the steps of the frame, of which there is at least one."""
        self._budget.check()
        if len(frame.steps) > 1 and not isinstance(expr, Paren) and self._constancy.of(expr):
            return _repeat(self._evaluate(expr, frame.first()), len(frame.steps), self._budget)
        return self._evaluate(expr, frame)

    def _evaluate(self, expr: Expr, frame: Frame) -> Value:
        elsewhere = self._sources.evaluated_elsewhere(expr, frame)
        if elsewhere is not None:
            return self._completed(expr, elsewhere, frame)
        match expr:
            case NumberLiteral():
                return Scalar(np.full(len(frame.steps), expr.value))
            case StringLiteral():
                return String(expr.value)
            case Paren():
                return self.evaluate(expr.expr, frame)
            case VectorSelector():
                return self._sources.instant(expr, frame)
            case MatrixSelector():
                return self._sources.ranges(expr, frame)
            case Subquery():
                return self._subquery(expr, frame)
            case Unary():
                return self._unary(expr, self.evaluate(expr.expr, frame))
            case Binary():
                lhs, rhs = self.evaluate(expr.lhs, frame), self.evaluate(expr.rhs, frame)
                return binary(expr, lhs, rhs, self._histograms, self._annotations, self._budget)
            case Aggregate():
                return self._aggregate(expr, frame)
            case Call():
                return self._call(expr, frame)

    def _subquery(self, expr: Subquery, frame: Frame) -> RangeVector:
        inside = frame.inside(expr, self._subquery_step_ms)
        range_ms = milliseconds(expr.range_)
        ends = frame.ends(expr)
        if len(inside.steps):
            vector = self.evaluate(expr.expr, inside)
            assert isinstance(vector, Vector)
        else:
            vector = _nothing(self._pool)
        offsets = np.zeros(len(vector.labels) + 1, dtype=np.int64)
        np.cumsum(np.count_nonzero(vector.present, axis=1), out=offsets[1:])
        if offsets[-1] == vector.values.size:
            timestamps = np.tile(inside.steps, len(vector.labels))
            values = vector.values.reshape(-1)
        else:
            timestamps = np.broadcast_to(inside.steps, vector.present.shape)[vector.present]
            values = vector.values[vector.present]
        values = each_reset_once(values, offsets, self._histograms)
        return RangeVector(vector.labels, offsets, timestamps, values, ends, range_ms, vector.drop_name)

    def _aggregate(self, expr: Aggregate, frame: Frame) -> Vector:
        parameter = None if expr.param is None else self.evaluate(expr.param, frame)
        vector = self.evaluate(expr.expr, frame)
        assert isinstance(vector, Vector)
        return aggregate(expr, vector, parameter, self._histograms, self._annotations, self._budget)

    def _completed(self, expr: Expr, vector: Vector, frame: Frame) -> Vector:
        """What storage nodes have made of an expression, which of topk and bottomk are the candidates."""
        if not isinstance(expr, Aggregate) or expr.op not in ("topk", "bottomk"):
            return vector
        assert expr.param is not None
        parameter = self.evaluate(expr.param, frame)
        return aggregate(expr, vector, parameter, self._histograms, self._annotations, self._budget)

    def _call(self, expr: Call, frame: Frame) -> Value:
        if expr.function == "timestamp":
            selector = _unwrap(expr.args[0])
            if isinstance(selector, VectorSelector):
                times = self._sources.instant(selector, frame, times=True)
                return replace(times, drop_name=np.ones_like(times.drop_name))
        if expr.function == "info":
            return self._info(expr, frame)
        if expr.function in _ABOUT_THE_QUERY:
            return Scalar(np.full(len(frame.steps), _ABOUT_THE_QUERY[expr.function](frame) / 1000.0))
        function = FUNCTIONS.get(expr.function)
        if function is None:
            raise EvalError(f"function {expr.function} is not supported")
        _refuse_extended(expr)
        args = tuple(self._argument(_unwrap(arg), frame) for arg in expr.args)
        about = (frame.steps, frame.step_ms, self._lookback_ms)
        context = Context(*about, self._annotations, self._pool, self._budget.check)
        self._budget.check()
        if expr.function not in TAKES_HISTOGRAMS:
            args = ignored(context, args, expr)
        value = function(context, args, expr)
        if not isinstance(value, Vector):
            return value
        value = self._histograms.folded(value)
        if value.labels.pool is not self._pool:
            value = replace(value, labels=adopt(value.labels, self._pool))
        # A function that changes labels may have made equal ones.
        return merge_rows(_writeable(value))

    def _info(self, expr: Call, frame: Frame) -> Vector:
        base = self.evaluate(expr.args[0], frame)
        assert isinstance(base, Vector)
        selector = info_selector(expr)
        found = self._sources.instant(selector, frame)
        if self._histograms.without_histograms(found)[1] is not None:
            raise EvalError("info sample should be float")
        return enriched(expr, base, found, self._sources.instant(selector, frame, times=True))

    def _argument(self, expr: Expr, frame: Frame) -> Value:
        value = self.evaluate(expr, frame)
        return self._histograms.unfolded(value) if isinstance(value, Vector | RangeVector) else value

    def _unary(self, expr: Unary, value: Value) -> Value:
        if expr.op == "+":
            return value
        if isinstance(value, Scalar):
            return Scalar(-value.values)
        assert isinstance(value, Vector)
        floats, index = self._histograms.without_histograms(value)
        negated = -floats.values
        if index is not None:
            held = index >= 0
            rows = self._histograms.take(index[held].astype(np.int64))
            negated[held] = self._histograms.add(negate(rows))
        return replace(value, values=negated, drop_name=np.ones_like(value.drop_name))


def _refuse_extended(call: Call) -> None:
    for arg in map(_unwrap, call.args):
        extended = arg.selector.extended if isinstance(arg, MatrixSelector) else None
        if extended is not None and call.function not in _EXTENDED[extended]:
            allowed = ", ".join(_EXTENDED[extended])
            raise EvalError(f"{extended} modifier can only be used with: {allowed} - not with {call.function}")


def _unwrap(expr: Expr) -> Expr:
    while isinstance(expr, Paren):
        expr = expr.expr
    return expr


def _writeable(vector: Vector) -> Vector:
    """Kernels take writeable arrays only, whether they write or not; a broadcast is not one."""
    values, present = vector.values, vector.present
    if values.flags.writeable and present.flags.writeable:
        return vector
    return replace(vector, values=for_kernels(values), present=for_kernels(present))


def _nothing(pool: StringPool) -> Vector:
    none = np.zeros((0, 0))
    return Vector(empty_table(pool), none, none.astype(np.bool_), np.zeros(0, dtype=np.bool_))


def _repeat(value: Value, n_steps: int, budget: Budget) -> Value:
    """The value of one step at all steps."""
    match value:
        case Scalar():
            return Scalar(np.repeat(value.values, n_steps))
        case Vector():
            budget.reserve(len(value.labels), n_steps)
            values, present = np.repeat(value.values, n_steps, axis=1), np.repeat(value.present, n_steps, axis=1)
            return replace(value, values=values, present=present)
        case RangeVector():
            return replace(value, ends=np.repeat(value.ends, n_steps))
        case String():
            return value
