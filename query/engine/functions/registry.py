"""What a function of PromQL is to the evaluator, and small things that all of them share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.labels import METRIC_NAME, LabelTable, StringPool
from query.engine.values import Context, RangeVector, Scalar, String, Value, Vector
from query.promql.ast import Call, Expr, Paren, Span

Function: TypeAlias = Callable[[Context, tuple[Value, ...], Call], Value]
"""(context, evaluated arguments, the call as written) -> value."""


def vector_of(value: Value) -> Vector:
    assert isinstance(value, Vector)
    return value


def range_of(value: Value) -> RangeVector:
    assert isinstance(value, RangeVector)
    return value


def scalar_of(value: Value) -> NDArray[np.float64]:
    assert isinstance(value, Scalar)
    return np.ascontiguousarray(value.values)


def string_of(value: Value) -> str:
    assert isinstance(value, String)
    return value.value


def argument(call: Call, index: int) -> Expr:
    """The argument as written, without parentheses around it."""
    expr = call.args[index]
    while isinstance(expr, Paren):
        expr = expr.expr
    return expr


def span_of(call: Call, index: int) -> Span:
    return argument(call, index).span


def renamed(vector: Vector, values: NDArray[np.float64], present: NDArray[np.bool_] | None = None) -> Vector:
    """The same series with other values and without their metric name."""
    return Vector(
        vector.labels,
        np.ascontiguousarray(values),
        vector.present if present is None else present,
        np.ones(len(vector.labels), dtype=np.bool_),
    )


def single_series(
    pool: StringPool, labels: dict[str, str], values: NDArray[np.float64], present: NDArray[np.bool_] | None = None
) -> Vector:
    """A vector of one series with these labels; values and present (n_steps,)."""
    names = tuple(sorted(name for name, value in labels.items() if value))
    codes = np.array([[pool.intern(labels[name])] for name in names], dtype=np.int32).reshape(len(names), 1)
    if present is None:
        present = np.ones(values.shape, dtype=np.bool_)
    return Vector(
        LabelTable(pool, names, codes), values.reshape(1, -1), present.reshape(1, -1), np.zeros(1, dtype=np.bool_)
    )


def metric_names(labels: LabelTable, rows: NDArray[np.bool_]) -> list[str]:
    """The different metric names of these series (bool (n_series,)), without the empty one."""
    return [labels.pool[code] for code in np.unique(labels.column(METRIC_NAME)[rows]).tolist() if code]
