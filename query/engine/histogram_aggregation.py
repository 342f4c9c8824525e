"""Aggregation operators where members of a group are native histograms."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.labels import METRIC_NAME
from query.engine.cells import HistogramPool
from query.engine.functions.gonumbers import format_g
from query.engine.labeling import Rows
from query.engine.native.ops import buckets, sum_groups
from query.engine.values import Annotations, Vector
from query.promql.ast import Aggregate
from query.promql.quoting import quote

IGNORING = ("min", "max", "stddev", "stdvar", "quantile", "topk", "bottomk")
"""Operators to which histograms mean nothing."""
_BRACKETS = (("(", "]"), ("[", ")"), ("(", ")"), ("[", "]"))


def say_ignored(node: Aggregate, annotations: Annotations) -> None:
    annotations.info(f"ignored histogram in {node.op} aggregation", node.expr.span)


def fold_histograms(
    node: Aggregate,
    vector: Vector,
    index: NDArray[np.int32],
    group: Rows,
    values: NDArray[np.float64],
    present: NDArray[np.bool_],
    pool: HistogramPool,
    annotations: Annotations,
) -> None:
    """Put the sum or mean of each group's histograms into `values` and `present`, (n_groups, n_steps).

    index: numbers of the histograms of the vector's cells. values, present: have the results of its floats; a
    group with floats and histograms at one step has no result there.
    """
    n_steps = values.shape[1]
    rows, steps = np.nonzero(index >= 0)
    keys, compact = np.unique(group[rows] * n_steps + steps, return_inverse=True)
    cells = keys // n_steps, keys % n_steps
    mixed = present[cells]
    if mixed.any():
        annotations.warn("encountered a mix of histograms and floats for aggregation", node.expr.span)
    result = sum_groups(
        pool.take(index[rows, steps].astype(np.int64)), compact.astype(np.int32), len(keys), mean=node.op == "avg"
    )
    broken = np.flatnonzero(result.incompatible & ~mixed)
    if len(broken):
        name = vector.labels.labels(int(rows[np.flatnonzero(compact == broken[0])[0]])).get(METRIC_NAME, "")
        annotations.warn(
            "vector contains a mix of histograms with exponential and custom buckets schemas for metric name "
            f"{quote(name)}",
            node.expr.span,
        )
    good = ~result.incompatible & ~mixed
    if (result.hint_clash & good).any():
        annotations.warn("conflicting counter resets during histogram aggregation", node.expr.span)
    if (result.bounds_reconciled & good).any():
        annotations.info("mismatched custom buckets were reconciled during aggregation", node.expr.span)
    values[cells] = pool.add(result.rows)
    present[cells] = good


def texts(numbers: NDArray[np.int64], pool: HistogramPool) -> list[str]:
    """Histograms as Prometheus writes them into a label."""
    rows = pool.take(numbers)
    offsets, rules, lower, upper, counts = (column.tolist() for column in buckets(rows))
    out = []
    for i, (count, total) in enumerate(zip(rows.counts.tolist(), rows.sums.tolist(), strict=True)):
        parts = [f"count:{format_g(count)}", f"sum:{format_g(total)}"]
        for at in range(offsets[i], offsets[i + 1]):
            left, right = _BRACKETS[rules[at]]
            parts.append(f"{left}{format_g(lower[at])},{format_g(upper[at])}{right}:{format_g(counts[at])}")
        out.append("{" + ", ".join(parts) + "}")
    return out
