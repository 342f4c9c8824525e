"""Aggregation operators: groups of series become one series, or some series of each group are kept."""

from __future__ import annotations

import numpy as np
import xxhash
from numpy.typing import NDArray

from common.kernels.aggregate import BOTTOM, FIRST, TOP, group_quantiles, pick_rows, settle_ties
from common.labels import METRIC_NAME, LabelTable
from query.engine.budget import Budget
from query.engine.cells import HistogramPool
from query.engine.folding import Folded, finished, fold
from query.engine.functions.gonumbers import format_g
from query.engine.gofmt import positional
from query.engine.histogram_aggregation import IGNORING, fold_histograms, say_ignored
from query.engine.histogram_aggregation import texts as histogram_texts
from query.engine.labeling import Rows, drop, empty_table, keep, number, order, set_label
from query.engine.values import Annotations, EvalError, Scalar, String, Value, Vector
from query.promql.ast import Aggregate
from query.promql.quoting import quote

_PICKS = {"topk": TOP, "bottomk": BOTTOM, "limitk": FIRST}
_SORTING = 4
"""How much longer a cell takes to sort than to add up."""
_LARGEST_INT64 = 9223372036854774784.0
_SMALLEST_INT64 = -9223372036854775808.0


def aggregate(
    node: Aggregate,
    vector: Vector,
    parameter: Value | None,
    histograms: HistogramPool,
    annotations: Annotations,
    budget: Budget,
) -> Vector:
    """Evaluate an aggregation; `parameter` is the evaluated first argument, if the operator has one.

    Raises:
        EvalError: the parameter is not allowed.
    """
    if node.op == "count_values":
        assert isinstance(parameter, String)
        return _count_values(node, vector, parameter.value, histograms, budget)
    index = None
    if node.op in IGNORING or node.op in ("sum", "avg"):
        everything = vector
        vector, index = histograms.without_histograms(vector)
        if index is not None and node.op in IGNORING:
            say_ignored(node, annotations)
    numbers = parameter.values if isinstance(parameter, Scalar) else np.zeros(vector.values.shape[1])
    if node.op in _PICKS:
        return _pick(node, vector, numbers)
    if node.op == "limit_ratio":
        return _limit_ratio(node, vector, numbers, annotations)
    table = _grouped_labels(node, vector.labels)
    group, firsts = number(table)
    labels = table.take(firsts)
    if node.op == "quantile":
        values, present = _quantile(node, vector, group, len(firsts), numbers, annotations, budget)
    else:
        values, present = finished(fold(node.op, vector, group, len(firsts), budget))
        if index is not None and node.op not in IGNORING:
            fold_histograms(node, vector, index, group, values, present, histograms, annotations)
            vector = everything
    return Vector(labels, values, present, _dropped(vector, group, len(firsts)))


def fold_part(
    node: Aggregate, vector: Vector, histograms: HistogramPool, annotations: Annotations, budget: Budget
) -> tuple[LabelTable, NDArray[np.bool_], Folded] | None:
    """Groups that may have more members elsewhere: their labels, whether they lose their names, and their state.

    None if there are histograms among what is to be added up.
    """
    if node.op in IGNORING or node.op in ("sum", "avg"):
        vector, index = histograms.without_histograms(vector)
        if index is not None and node.op not in IGNORING:
            return None
        if index is not None:
            say_ignored(node, annotations)
    table = _grouped_labels(node, vector.labels)
    group, firsts = number(table)
    dropped = _dropped(vector, group, len(firsts))
    return table.take(firsts), dropped, fold(node.op, vector, group, len(firsts), budget)


def _grouped_labels(node: Aggregate, table: LabelTable) -> LabelTable:
    if node.without:
        return drop(table, {*node.grouping, METRIC_NAME})
    return keep(table, node.grouping)


def _dropped(vector: Vector, group: Rows, n_groups: int) -> NDArray[np.bool_]:
    """A group loses its name if that of any of its members is to be removed."""
    out = np.zeros(n_groups, dtype=np.bool_)
    if vector.drop_name.any():
        out[group[vector.drop_name & vector.present.any(axis=1)]] = True
    return out


def _members(group: Rows, n_groups: int, ranked: Rows | None = None) -> tuple[Rows, Rows]:
    """Rows by group, within each ascending or as they are ranked, and where each group starts among them."""
    starts = np.zeros(n_groups + 1, dtype=np.int64)
    np.cumsum(np.bincount(group, minlength=n_groups), out=starts[1:])
    if ranked is None:
        return np.argsort(group, kind="stable"), starts
    return ranked[np.argsort(group[ranked], kind="stable")], starts


def _quantile(
    node: Aggregate,
    vector: Vector,
    group: Rows,
    n_groups: int,
    quantiles: NDArray[np.float64],
    annotations: Annotations,
    budget: Budget,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    assert node.param is not None
    highest, lowest = float(quantiles.max()), float(quantiles.min())
    for q in [highest] * (not highest <= 1.0) + [lowest] * (lowest < 0.0):
        annotations.warn(f"quantile value should be between 0 and 1, got {format_g(q)}", node.param.span)
    values = np.zeros((n_groups, vector.values.shape[1]))
    present = np.zeros(values.shape, dtype=np.bool_)
    rows, starts = _members(group, n_groups)
    for steps in budget.chunks(values.shape[1], _SORTING * len(group)):
        columns = (np.ascontiguousarray(array[..., steps]) for array in (quantiles, vector.values, vector.present))
        out = np.empty_like(values[:, steps]), np.empty_like(present[:, steps])
        group_quantiles(*columns, rows, starts, *out)
        values[:, steps], present[:, steps] = out
    return values, present


def _nothing(vector: Vector) -> Vector:
    none = np.zeros(0, dtype=np.int64)
    return Vector(vector.labels.take(none), vector.values[none], vector.present[none], vector.drop_name[none])


def _pick(node: Aggregate, vector: Vector, limits: NDArray[np.float64]) -> Vector:
    if np.isnan(limits).any():
        raise EvalError("Parameter value is NaN")
    if limits.max() < 1:
        return _nothing(vector)
    if limits.min() <= _SMALLEST_INT64:
        raise EvalError(f"Scalar value {format_g(float(limits.min()))} underflows int64")
    if limits.max() >= _LARGEST_INT64:
        raise EvalError(f"Scalar value {format_g(float(limits.max()))} overflows int64")
    group, firsts = number(_grouped_labels(node, vector.labels))
    # Labels say which rows are first and which of equally good ones stay; where they are stored must not matter.
    ranked = order(vector.labels) if node.op == "limitk" else None
    rows, starts = _members(group, len(firsts), ranked)
    present = np.zeros_like(vector.present)
    whole = np.maximum(np.trunc(limits), 0.0).astype(np.int64)
    tied = np.zeros((len(firsts), present.shape[1]), dtype=np.bool_)
    tie = np.zeros(tied.shape)
    pick_rows(_PICKS[node.op], vector.values, vector.present, rows, starts, whole, present, tied, tie)
    if tied.any():
        rows, starts = _members(group, len(firsts), order(vector.labels))
        settle_ties(vector.values, vector.present, rows, starts, tied, tie, present)
    picked = Vector(vector.labels, vector.values, present, vector.drop_name)
    if present.shape[1] == 1 and node.op != "limitk":
        return _ranked(picked, group, descending=node.op == "topk")
    return picked


def _ranked(vector: Vector, group: Rows, *, descending: bool) -> Vector:
    """At a single step the result is in order within each group, NaN last, equal values by labels."""
    rows = np.flatnonzero(vector.present[:, 0])
    rows = rows[order(vector.labels.take(rows))]
    values = vector.values[rows, 0]
    keys = (-values if descending else values, np.isnan(values), group[rows])
    rows = rows[np.lexsort(keys)]
    return Vector(vector.labels.take(rows), vector.values[rows], vector.present[rows], vector.drop_name[rows])


def _limit_ratio(node: Aggregate, vector: Vector, ratios: NDArray[np.float64], annotations: Annotations) -> Vector:
    """Keep the series whose hash, as a fraction of its range, is below the ratio (or in the rest above it)."""
    assert node.param is not None
    if np.isnan(ratios).any():
        raise EvalError("Ratio value is NaN")
    if not ratios.any():
        return _nothing(vector)
    for bound, extreme in ((1.0, float(ratios.max())), (-1.0, float(ratios.min()))):
        if abs(extreme) > 1.0 and extreme * bound > 0.0:
            annotations.warn(
                f"ratio value should be between -1 and 1, got {format_g(extreme)}, capping to {format_g(bound)}",
                node.param.span,
            )
    ratios = np.clip(ratios, -1.0, 1.0)
    fractions = np.array([_fraction(labels) for labels in vector.labels], dtype=np.float64)[:, None]
    chosen = np.where(ratios >= 0.0, fractions < ratios, fractions >= 1.0 + ratios) & (ratios != 0.0)
    return Vector(vector.labels, vector.values, vector.present & chosen, vector.drop_name)


def _fraction(labels: dict[str, str]) -> float:
    """Hash of a label set over 2^64: xxh64 of Prometheus' own encoding, so that both keep the same series.

    Each name and value is preceded by its length, one byte below 255, else 255 and three bytes.
    """
    parts = []
    for name in sorted(labels):
        for text in (name.encode(), labels[name].encode()):
            size = len(text)
            parts.append(bytes((size,)) if size < 255 else b"\xff" + size.to_bytes(3, "little"))
            parts.append(text)
    return float(xxhash.xxh64_intdigest(b"".join(parts))) / float((1 << 64) - 1)


def _count_values(
    node: Aggregate, vector: Vector, label: str, histograms: HistogramPool, budget: Budget
) -> Vector:
    """One series for each value in each group, which counts the members that have it."""
    if not label or any(0xD800 <= ord(char) <= 0xDFFF for char in label):
        raise EvalError(f"invalid label name {quote(label)}")
    pool = vector.labels.pool
    n_steps = vector.values.shape[1]
    base = drop(_grouped_labels(node, vector.labels), (label,))
    group, firsts = number(base)
    rows, steps = np.nonzero(vector.present)
    if not len(rows):
        return Vector(
            empty_table(pool), np.zeros((0, n_steps)), np.zeros((0, n_steps), np.bool_), np.zeros(0, bool)
        )
    distinct, inverse = np.unique(vector.values[rows, steps].view(np.int64), return_inverse=True)
    texts = [positional(value) for value in distinct.view(np.float64).tolist()]
    numbers = histograms.index(distinct.view(np.float64))
    if numbers is not None:
        held = np.flatnonzero(numbers >= 0)
        for i, text in zip(
            held.tolist(), histogram_texts(numbers[held].astype(np.int64), histograms), strict=True
        ):
            texts[i] = text
    budget.check()
    # NaNs of different bits have one text, and so one code.
    codes = np.array([pool.intern(text) for text in texts], dtype=np.int32)[inverse]
    if node.without and label in node.grouping:
        codes = np.zeros_like(codes)
    pairs = LabelTable(pool, ("group", "value"), np.stack((group[rows].astype(np.int32), codes)))
    out_row, out_firsts = number(pairs)
    budget.reserve(len(out_firsts), n_steps)
    counts = np.bincount(out_row * n_steps + steps, minlength=len(out_firsts) * n_steps)
    values = counts.reshape(len(out_firsts), n_steps).astype(np.float64)
    labels = set_label(base.take(firsts[group[rows[out_firsts]]]), label, codes[out_firsts])
    return Vector(labels, values, values > 0.0, np.zeros(len(out_firsts), dtype=np.bool_))
