"""Functions that give or take scalars: the time, the query's bounds, conversions."""

from __future__ import annotations

import numpy as np

from query.engine.functions.elementwise import go_max, go_min
from query.engine.functions.registry import Function, scalar_of, single_series, vector_of
from query.engine.values import Context, Scalar, Value
from query.promql.ast import Call


def _constant(context: Context, value: float) -> Scalar:
    return Scalar(np.full(context.steps.shape, value, dtype=np.float64))


def _time(context: Context, args: tuple[Value, ...], call: Call) -> Value:
    return Scalar(context.steps / 1000)


def _pi(context: Context, args: tuple[Value, ...], call: Call) -> Value:
    return _constant(context, np.pi)


# The four that follow speak of the steps of the context. Inside a subquery the evaluator has to give those of the
# whole query, or to replace the calls by numbers beforehand.


def _start(context: Context, args: tuple[Value, ...], call: Call) -> Value:
    return _constant(context, context.steps[0] / 1000)


def _end(context: Context, args: tuple[Value, ...], call: Call) -> Value:
    return _constant(context, context.steps[-1] / 1000)


def _range(context: Context, args: tuple[Value, ...], call: Call) -> Value:
    return _constant(context, (context.steps[-1] - context.steps[0]) / 1000)


def _step(context: Context, args: tuple[Value, ...], call: Call) -> Value:
    return _constant(context, context.step_ms / 1000)


def _scalar(context: Context, args: tuple[Value, ...], call: Call) -> Value:
    """The value of the only series; NaN where there is none or more than one."""
    vector = vector_of(args[0])
    if not len(vector.labels):
        return _constant(context, np.nan)
    row = vector.present.argmax(axis=0)
    values = np.take_along_axis(vector.values, row[np.newaxis], axis=0)[0]
    return Scalar(np.where(vector.present.sum(axis=0) == 1, values, np.nan))


def _vector(context: Context, args: tuple[Value, ...], call: Call) -> Value:
    return single_series(context.pool, {}, scalar_of(args[0]))


def _max_of(context: Context, args: tuple[Value, ...], call: Call) -> Value:
    return Scalar(go_max(scalar_of(args[0]), scalar_of(args[1])))


def _min_of(context: Context, args: tuple[Value, ...], call: Call) -> Value:
    return Scalar(go_min(scalar_of(args[0]), scalar_of(args[1])))


FUNCTIONS: dict[str, Function] = {
    "end": _end,
    "max_of": _max_of,
    "min_of": _min_of,
    "pi": _pi,
    "range": _range,
    "scalar": _scalar,
    "start": _start,
    "step": _step,
    "time": _time,
    "vector": _vector,
}
