"""Arguments for the functions, and their results, as plain Python values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from common.labels import LabelTable, StringPool
from query.engine.functions import FUNCTIONS
from query.engine.values import Annotations, Context, RangeVector, Scalar, String, Value, Vector
from query.promql.ast import Call, Expr, NumberLiteral, Span

Labels = Mapping[str, str]
Samples = Sequence[tuple[int, float]]
Row = dict[str, str]


def context(steps: Sequence[int] = (0,), step_ms: int = 0, query: str = "f(a, b, c, d)") -> Context:
    return Context(np.array(steps, dtype=np.int64), step_ms, 300_000, Annotations(query), StringPool())


def scalar(value: float, n_steps: int = 1) -> Scalar:
    return Scalar(np.full(n_steps, value, dtype=np.float64))


def vector(series: Sequence[tuple[Labels, Sequence[float | None]]], pool: StringPool | None = None) -> Vector:
    """Label sets with a value for each step, None where there is none."""
    n_steps = len(series[0][1]) if series else 1
    present = np.array([[v is not None for v in values] for _, values in series], dtype=np.bool_)
    values = np.array([[7.5 if v is None else v for v in values] for _, values in series], dtype=np.float64)
    shape = (len(series), n_steps)
    labels = LabelTable.of([labels for labels, _ in series], pool)
    return Vector(labels, values.reshape(shape), present.reshape(shape), np.zeros(len(series), dtype=np.bool_))


def range_vector(series: Sequence[tuple[Labels, Samples]], ends: Sequence[int], range_ms: int) -> RangeVector:
    lengths = [len(samples) for _, samples in series]
    flat = [sample for _, samples in series for sample in samples]
    return RangeVector(
        LabelTable.of([labels for labels, _ in series]),
        np.array([0, *np.cumsum(lengths, dtype=np.int64)], dtype=np.int64),
        np.array([time for time, _ in flat], dtype=np.int64),
        np.array([value for _, value in flat], dtype=np.float64),
        np.array(ends, dtype=np.int64),
        range_ms,
        np.zeros(len(series), dtype=np.bool_),
    )


def call(name: str, *args: Expr, n_args: int = 0) -> Call:
    """A call whose arguments stand at columns 3, 6, 9 … of a query like `f(a, b, c)`."""
    written = args or tuple(NumberLiteral(0, span=Span(2 + 3 * i, 3 + 3 * i)) for i in range(n_args))
    return Call(name, written, Span(0, 3 * len(written)))


def run(name: str, *args: Value | str | float, at: Context | None = None, written: Call | None = None) -> Value:
    """Call a function; texts and numbers stand for themselves."""
    at = at or context()
    values = tuple(
        String(arg)
        if isinstance(arg, str)
        else scalar(arg, len(at.steps))
        if isinstance(arg, int | float)
        else arg
        for arg in args
    )
    return FUNCTIONS[name](at, values, written or call(name, n_args=len(values)))


def rows(value: Value) -> list[tuple[Row, list[float | None]]]:
    """Label sets, without names that are to be removed, and the values of the steps."""
    assert isinstance(value, Vector)
    out = []
    for i, labels in enumerate(value.labels):
        if value.drop_name[i]:
            labels.pop("__name__", None)
        cells = zip(value.values[i].tolist(), value.present[i].tolist(), strict=True)
        out.append((labels, [v if there else None for v, there in cells]))
    return out


def cells(value: Value) -> list[list[float | None]]:
    return [values for _, values in rows(value)]


def one(value: Value) -> float | None:
    """The only cell."""
    ((cell,),) = cells(value)
    return cell
