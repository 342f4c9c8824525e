"""absent and absent_over_time: one series that is there when none else is."""

from __future__ import annotations

import numpy as np

from common.kernels.functions import PRESENT
from common.labels import METRIC_NAME
from common.store import MatchOp
from query.engine.functions.registry import Function, argument, range_of, single_series, vector_of
from query.engine.functions.windows import aggregate
from query.engine.values import Context, Value
from query.promql.ast import Call, Expr, MatrixSelector, VectorSelector


def _labels_of(expr: Expr) -> dict[str, str]:
    """Labels that the selector asks for by equality, but for the metric name and those it asks for twice."""
    selector = expr.selector if isinstance(expr, MatrixSelector) else expr
    if not isinstance(selector, VectorSelector):
        return {}
    labels: dict[str, str] = {}
    seen: set[str] = set()
    for matcher in selector.matchers:
        if matcher.name == METRIC_NAME:
            continue
        if matcher.op is MatchOp.EQUAL and matcher.name not in seen:
            seen.add(matcher.name)
            labels[matcher.name] = matcher.value
        else:
            labels.pop(matcher.name, None)
    return labels


def _absent(context: Context, args: tuple[Value, ...], call: Call) -> Value:
    vector = vector_of(args[0])
    missing = ~np.any(vector.present, axis=0)
    return single_series(vector.labels.pool, _labels_of(argument(call, 0)), np.ones(missing.shape), missing)


def _absent_over_time(context: Context, args: tuple[Value, ...], call: Call) -> Value:
    samples = range_of(args[0])
    _, present = aggregate(PRESENT, context, samples)
    missing = ~np.any(present, axis=0)
    return single_series(samples.labels.pool, _labels_of(argument(call, 0)), np.ones(missing.shape), missing)


FUNCTIONS: dict[str, Function] = {"absent": _absent, "absent_over_time": _absent_over_time}
