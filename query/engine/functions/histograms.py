"""histogram_quantile, histogram_quantiles and histogram_fraction over classic and native histograms.

A classic histogram is found by its labels without `le`, and each step of it by the buckets that are present there.
Native ones are further rows of the same result.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from common.kernels.histogram import FRACTION, QUANTILE, classic_histograms
from common.labels import METRIC_NAME, LabelTable
from query.engine.functions.gonumbers import format_g, format_open_metrics, parse_float
from query.engine.functions.native_vectors import Natives
from query.engine.functions.native_windows import floats_of, names_of
from query.engine.functions.registry import (
    Function,
    scalar_of,
    span_of,
    string_of,
    vector_of,
)
from query.engine.functions.windows import warn_of_quantiles
from query.engine.labeling import drop, number, set_label, stack
from query.engine.values import Context, Value, Vector
from query.promql.ast import Call, Span
from query.promql.quoting import quote

BUCKET_LABEL = "le"


@dataclass(frozen=True, slots=True, eq=False)
class _Buckets:
    """The histograms of a vector.

    labels: one row a histogram, without `le`. offsets, rows, bounds: as in common.kernels.histogram.
    """

    vector: Vector
    labels: LabelTable
    offsets: NDArray[np.int64]
    rows: NDArray[np.int64]
    bounds: NDArray[np.float64]

    @classmethod
    def of(cls, context: Context, vector: Vector, span: Span) -> _Buckets:
        """Group the buckets; warns of series that are not buckets."""
        labels = vector.labels
        codes, inverse = np.unique(labels.column(BUCKET_LABEL), return_inverse=True)
        parsed = [parse_float(labels.pool[code]) for code in codes.tolist()]
        bounds = np.array([np.nan if bound is None else bound for bound in parsed])[inverse]
        broken = np.array([bound is None for bound in parsed], dtype=np.bool_)[inverse]
        _warn_of_bounds(context, labels, broken & vector.present.any(axis=1), span)
        rows = np.flatnonzero(~broken)
        labels = drop(labels.take(rows), (BUCKET_LABEL,))
        group, first = number(labels)
        order = np.lexsort((bounds[rows], group))
        offsets = np.searchsorted(group[order], np.arange(len(first) + 1)).astype(np.int64)
        rows_in_order = rows[order].astype(np.int64)
        return cls(vector, labels.take(first), offsets, rows_in_order, bounds[rows_in_order])

    def evaluate(self, op: int, a: NDArray[np.float64], b: NDArray[np.float64]) -> _Evaluation:
        shape = (len(self.labels), self.vector.values.shape[1])
        values = np.empty(shape)
        present = np.empty(shape, dtype=np.bool_)
        fixed = np.tile(np.array([np.inf, -np.inf, 0.0]), (shape[0], 1))
        fixed_steps = np.zeros((shape[0], 3), dtype=np.int64)
        classic_histograms(
            op,
            a,
            b,
            self.offsets,
            self.rows,
            self.bounds,
            self.vector.values,
            self.vector.present,
            values,
            present,
            fixed,
            fixed_steps,
        )
        return _Evaluation(values, present, fixed, fixed_steps)


@dataclass(frozen=True, slots=True, eq=False)
class _Evaluation:
    """What the kernel gives, see there."""

    values: NDArray[np.float64]
    present: NDArray[np.bool_]
    fixed: NDArray[np.float64]
    fixed_steps: NDArray[np.int64]


def _warn_of_bounds(context: Context, labels: LabelTable, rows: NDArray[np.bool_], span: Span) -> None:
    if not rows.any():
        return
    pairs = np.stack([labels.column(METRIC_NAME)[rows], labels.column(BUCKET_LABEL)[rows]], axis=1)
    for name, bound in np.unique(pairs, axis=0).tolist():
        message = f'bucket label "le" is missing or has a malformed value of {quote(labels.pool[bound])}'
        context.annotations.warn(message + _of_metric(labels.pool[name]), span)


def _of_metric(name: str) -> str:
    return f" for metric name {quote(name)}" if name else ""


def _tell_of_fixes(context: Context, buckets: _Buckets, evaluations: list[_Evaluation], span: Span) -> None:
    """One message for each metric name: what had to be changed to make counts ascend, and when."""
    names = np.tile(buckets.labels.column(METRIC_NAME), len(evaluations))
    fixed = np.concatenate([evaluation.fixed for evaluation in evaluations])
    steps = np.concatenate([evaluation.fixed_steps for evaluation in evaluations])
    for name in np.unique(names[steps[:, 0] > 0]).tolist():
        chosen = (names == name) & (steps[:, 0] > 0)
        first = context.steps[steps[chosen, 1].min()]
        last = context.steps[steps[chosen, 2].max()]
        context.annotations.info(
            "input to histogram_quantile needed to be fixed for monotonicity (see"
            " https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)"
            + _of_metric(buckets.labels.pool[name])
            + f", from buckets {format_g(fixed[chosen, 0].min())} to {format_g(fixed[chosen, 1].max())}"
            f", with a max diff of {fixed[chosen, 2].max():.2g}, over {steps[chosen, 0].sum()} samples"
            f" from {_rfc3339(int(first))} to {_rfc3339(int(last))}",
            span,
        )


def _rfc3339(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _vector(labels: LabelTable, values: NDArray[np.float64], present: NDArray[np.bool_]) -> Vector:
    return Vector(labels, values, present, np.ones(len(labels), dtype=np.bool_))


def _histogram_quantile(context: Context, args: tuple[Value, ...], call: Call) -> Value:
    q = scalar_of(args[0])
    warn_of_quantiles(context, q, span_of(call, 0))
    buckets, natives = _of_both_kinds(context, vector_of(args[1]), span_of(call, 1))
    result = buckets.evaluate(QUANTILE, q, q)
    _tell_of_fixes(context, buckets, [result], span_of(call, 1))
    classic = _vector(buckets.labels, result.values, result.present)
    return classic if natives is None else _joined(classic, natives.quantiles(context, q, span_of(call, 1)))


def _histogram_fraction(context: Context, args: tuple[Value, ...], call: Call) -> Value:
    low, high = scalar_of(args[0]), scalar_of(args[1])
    buckets, natives = _of_both_kinds(context, vector_of(args[2]), span_of(call, 2))
    result = buckets.evaluate(FRACTION, low, high)
    classic = _vector(buckets.labels, result.values, result.present)
    return (
        classic if natives is None else _joined(classic, natives.fractions(context, low, high, span_of(call, 2)))
    )


def _of_both_kinds(context: Context, vector: Vector, span: Span) -> tuple[_Buckets, Natives | None]:
    """Classic and native histograms; where both have the same labels at a step, neither is left."""
    if vector.histograms is None:
        return _Buckets.of(context, vector, span), None
    floats, natives = floats_of(vector), Natives.of(vector)
    buckets = _Buckets.of(context, floats, span)
    ids, firsts = number(stack([buckets.labels, natives.vector.labels]))
    n_classic, n_steps = len(buckets.labels), vector.values.shape[1]
    classic = np.zeros((len(firsts), n_steps), dtype=np.bool_)
    np.logical_or.at(classic, np.repeat(ids[:n_classic], np.diff(buckets.offsets)), floats.present[buckets.rows])
    clash = classic[ids[n_classic:]] & natives.cells
    if clash.any():
        for name in names_of(natives.vector.labels, np.any(clash, axis=1)):
            message = "vector contains a mix of classic and native histograms"
            context.annotations.warn(message + _of_metric(name), span)
        both = np.zeros_like(classic)
        np.logical_or.at(both, ids[n_classic:], clash)
        present = floats.present.copy()
        present[buckets.rows] &= ~np.repeat(both[ids[:n_classic]], np.diff(buckets.offsets), axis=0)
        buckets = replace(buckets, vector=replace(floats, present=present))
        natives = replace(natives, cells=natives.cells & ~clash)
    return buckets, natives


def _joined(classic: Vector, native: Vector) -> Vector:
    return _vector(
        stack([classic.labels, native.labels]),
        np.concatenate((classic.values, native.values)),
        np.concatenate((classic.present, native.present)),
    )


def _histogram_quantiles(context: Context, args: tuple[Value, ...], call: Call) -> Value:
    """One result for each quantile, which becomes the value of a label."""
    label = string_of(args[1])
    for i in range(2, len(args)):
        warn_of_quantiles(context, scalar_of(args[i]), span_of(call, i))
    buckets, natives = _of_both_kinds(context, vector_of(args[0]), span_of(call, 0))
    evaluations, tables, present = [], [], []
    values: list[NDArray[np.float64]] = []
    for value in args[2:]:
        q = scalar_of(value)
        result = buckets.evaluate(QUANTILE, q, q)
        texts = np.array([format_open_metrics(quantile) for quantile in q.tolist()])
        for text in dict.fromkeys(texts.tolist()):
            code = np.full(len(buckets.labels), buckets.labels.pool.intern(text), dtype=np.int32)
            evaluations.append(result)
            values.append(result.values)
            tables.append(set_label(buckets.labels, label, code))
            present.append(result.present & (texts == text))
            if natives is not None:
                native = natives.quantiles(context, q, span_of(call, 0))
                code = np.full(len(native.labels), native.labels.pool.intern(text), dtype=np.int32)
                values.append(native.values)
                tables.append(set_label(native.labels, label, code))
                present.append(native.present & (texts == text))
    _tell_of_fixes(context, buckets, list(dict.fromkeys(evaluations)), span_of(call, 0))
    return _vector(stack(tables), np.concatenate(values), np.concatenate(present))


FUNCTIONS: dict[str, Function] = {
    "histogram_fraction": _histogram_fraction,
    "histogram_quantile": _histogram_quantile,
    "histogram_quantiles": _histogram_quantiles,
}
