"""Functions of a range vector: what happened in the window before each step."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from common.kernels import functions as statistics
from common.kernels import window
from query.engine.functions import native_windows as native
from query.engine.functions.gonumbers import format_f, format_g
from query.engine.functions.native_extended import extended_difference
from query.engine.functions.pieces import in_pieces
from query.engine.functions.registry import (
    Function,
    argument,
    metric_names,
    range_of,
    scalar_of,
    span_of,
)
from query.engine.values import Context, EvalError, RangeVector, Value, Vector
from query.promql.ast import Call, MatrixSelector, Span
from query.promql.quoting import quote

_RANKING = 16
"""How much longer a sample takes where windows are sorted than where they are summed."""
_COUNTER_ENDINGS = ("_total", "_sum", "_count", "_bucket")


def _room(samples: RangeVector) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    shape = (len(samples.labels), samples.ends.shape[0])
    return np.empty(shape), np.empty(shape, dtype=np.bool_)


def _nameless(
    samples: RangeVector, values: NDArray[np.float64], present: NDArray[np.bool_], *, keeps_name: bool = False
) -> Vector:
    drop_name = samples.drop_name if keeps_name else np.ones(len(samples.labels), dtype=np.bool_)
    return Vector(samples.labels, values, present, drop_name)


def _difference(op: int, context: Context, args: tuple[Value, ...], call: Call) -> Value:
    samples = range_of(args[0])
    if samples.histograms is None:
        return _float_difference(op, context, samples, call)
    floats = _float_difference(op, context, native.stripped(samples), call)
    selector = argument(call, 0)
    extended = selector.selector.extended if isinstance(selector, MatrixSelector) else None
    if op in (window.RESETS, window.CHANGES):
        return native.events(op, samples, floats, None if extended is None else context.lookback_ms)
    if extended is not None:
        smoothed = extended == "smoothed"
        return extended_difference(op, smoothed, context, samples, floats, span_of(call, 0))
    return native.difference(op, context, samples, floats, span_of(call, 0))


def _float_difference(op: int, context: Context, samples: RangeVector, call: Call) -> Vector:
    values, present = _room(samples)
    range_s = samples.range_ms // 1000 + samples.range_ms % 1000 * 1_000_000 / 1e9
    selector = argument(call, 0)
    extended = selector.selector.extended if isinstance(selector, MatrixSelector) else None
    if extended is None:

        def run(rows: slice, steps: slice, offsets: NDArray[np.int64]) -> None:
            where = (samples.timestamps, samples.values, samples.ends[steps], samples.range_ms, range_s)
            window.difference_over_windows(op, offsets, *where, values[rows, steps], present[rows, steps])

        in_pieces(context, samples, run)
    else:
        mode = window.SMOOTHED if extended == "smoothed" else window.ANCHORED

        def run_extended(rows: slice, steps: slice, offsets: NDArray[np.int64]) -> None:
            where = (
                samples.timestamps,
                samples.values,
                samples.ends[steps],
                samples.range_ms,
                context.lookback_ms,
            )
            out = values[rows, steps], present[rows, steps]
            window.extended_over_windows(op, mode, offsets, *where, range_s, *out)

        in_pieces(context, samples, run_extended, margin_ms=(context.lookback_ms, context.lookback_ms))
    if op in (window.RATE, window.INCREASE):
        _suspect_gauges(context, samples, present, span_of(call, 0))
    return _nameless(samples, values, present)


def _suspect_gauges(context: Context, samples: RangeVector, present: NDArray[np.bool_], span: Span) -> None:
    """Say so where a name does not look like a counter's."""
    for name in metric_names(samples.labels, np.any(present, axis=1)):
        if not name.endswith(_COUNTER_ENDINGS):
            message = "metric might not be a counter, name does not end in _total/_sum/_count/_bucket:"
            context.annotations.info(f"{message} {quote(name)}", span)


def aggregate(op: int, context: Context, samples: RangeVector) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """One of the statistics of `common.kernels.functions.aggregate_windows` and where there is one."""
    values, present = _room(samples)

    def run(rows: slice, steps: slice, offsets: NDArray[np.int64]) -> None:
        where = (samples.timestamps, samples.values, samples.ends[steps], samples.range_ms)
        statistics.aggregate_windows(op, offsets, *where, values[rows, steps], present[rows, steps])

    in_pieces(context, samples, run, weight=4 if op in (statistics.STDVAR, statistics.STDDEV) else 1)
    return values, present


def _over_time(op: int, context: Context, args: tuple[Value, ...], call: Call) -> Value:
    samples = range_of(args[0])
    keeps_name = op in (statistics.FIRST, statistics.LAST)
    if samples.histograms is not None and op in (statistics.SUM, statistics.AVG):
        floats = _nameless(samples, *aggregate(op, context, native.stripped(samples)))
        return native.summed(context, samples, floats, span_of(call, 0), mean=op == statistics.AVG)
    values, present = aggregate(op, context, samples)
    result = _nameless(samples, values, present, keeps_name=keeps_name)
    if samples.histograms is not None and keeps_name:
        return native.picked(samples, result, last=op == statistics.LAST)
    return result


def _ranked(op: int, context: Context, samples: RangeVector, q: NDArray[np.float64]) -> Vector:
    values, present = _room(samples)

    def run(rows: slice, steps: slice, offsets: NDArray[np.int64]) -> None:
        where = (samples.timestamps, samples.values, samples.ends[steps], samples.range_ms)
        statistics.rank_windows(op, q[steps], offsets, *where, values[rows, steps], present[rows, steps])

    in_pieces(context, samples, run, weight=_RANKING)
    return _nameless(samples, values, present)


def warn_of_quantiles(context: Context, q: NDArray[np.float64], span: Span) -> None:
    """Warn of each value that is no quantile."""
    for value in dict.fromkeys(format_g(value) for value in q[~((q >= 0) & (q <= 1))].tolist()):
        context.annotations.warn(f"quantile value should be between 0 and 1, got {value}", span)


def _quantile_over_time(context: Context, args: tuple[Value, ...], call: Call) -> Value:
    q = scalar_of(args[0])
    result = _ranked(statistics.QUANTILE, context, range_of(args[1]), q)
    warn_of_quantiles(context, q[result.present.any(axis=0)], span_of(call, 0))
    return result


def _mad_over_time(context: Context, args: tuple[Value, ...], call: Call) -> Value:
    samples = range_of(args[0])
    return _ranked(statistics.MAD, context, samples, np.full(samples.ends.shape, 0.5))


def _fitted(
    op: int, context: Context, samples: RangeVector, a: NDArray[np.float64], b: NDArray[np.float64]
) -> Vector:
    values, present = _room(samples)

    def run(rows: slice, steps: slice, offsets: NDArray[np.int64]) -> None:
        where = (samples.timestamps, samples.values, samples.ends[steps], samples.range_ms)
        about = (a[steps], b[steps], context.steps[steps])
        statistics.fit_windows(op, *about, offsets, *where, values[rows, steps], present[rows, steps])

    in_pieces(context, samples, run, weight=4)
    return _nameless(samples, values, present)


def _deriv(context: Context, args: tuple[Value, ...], call: Call) -> Value:
    samples = range_of(args[0])
    unused = np.zeros(samples.ends.shape)
    return _fitted(statistics.DERIV, context, samples, unused, unused)


def _predict_linear(context: Context, args: tuple[Value, ...], call: Call) -> Value:
    ahead_s = scalar_of(args[1])
    return _fitted(statistics.PREDICT_LINEAR, context, range_of(args[0]), ahead_s, ahead_s)


def _double_exponential_smoothing(context: Context, args: tuple[Value, ...], call: Call) -> Value:
    samples = range_of(args[0])
    smoothing, trend = scalar_of(args[1]), scalar_of(args[2])
    # NaN is let through, as Prometheus does.
    wrong = (smoothing <= 0) | (smoothing >= 1) | (trend <= 0) | (trend >= 1)
    if wrong.any():
        # Factors are looked at only for steps that have a sample.
        _, present = aggregate(statistics.PRESENT, context, samples)
        for step in np.flatnonzero(wrong & present.any(axis=0))[:1]:
            if smoothing[step] <= 0 or smoothing[step] >= 1:
                text = format_f(float(smoothing[step]))
                raise EvalError(f"invalid smoothing factor. Expected: 0 < sf < 1, got: {text}")
            raise EvalError(f"invalid trend factor. Expected: 0 < tf < 1, got: {format_f(float(trend[step]))}")
    return _fitted(statistics.SMOOTHING, context, samples, smoothing, trend)


FUNCTIONS: dict[str, Function] = {
    "rate": partial(_difference, window.RATE),
    "increase": partial(_difference, window.INCREASE),
    "delta": partial(_difference, window.DELTA),
    "irate": partial(_difference, window.IRATE),
    "idelta": partial(_difference, window.IDELTA),
    "resets": partial(_difference, window.RESETS),
    "changes": partial(_difference, window.CHANGES),
    "sum_over_time": partial(_over_time, statistics.SUM),
    "avg_over_time": partial(_over_time, statistics.AVG),
    "count_over_time": partial(_over_time, statistics.COUNT),
    "present_over_time": partial(_over_time, statistics.PRESENT),
    "last_over_time": partial(_over_time, statistics.LAST),
    "first_over_time": partial(_over_time, statistics.FIRST),
    "min_over_time": partial(_over_time, statistics.MIN),
    "max_over_time": partial(_over_time, statistics.MAX),
    "stdvar_over_time": partial(_over_time, statistics.STDVAR),
    "stddev_over_time": partial(_over_time, statistics.STDDEV),
    "ts_of_last_over_time": partial(_over_time, statistics.TS_LAST),
    "ts_of_first_over_time": partial(_over_time, statistics.TS_FIRST),
    "ts_of_min_over_time": partial(_over_time, statistics.TS_MIN),
    "ts_of_max_over_time": partial(_over_time, statistics.TS_MAX),
    "quantile_over_time": _quantile_over_time,
    "mad_over_time": _mad_over_time,
    "deriv": _deriv,
    "predict_linear": _predict_linear,
    "double_exponential_smoothing": _double_exponential_smoothing,
}
