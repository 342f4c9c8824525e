"""What selectors and subqueries do with native histograms besides passing them on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from common.histograms import (
    HINT_GAUGE,
    HINT_NOT_RESET,
    HINT_RESET,
    HINT_UNKNOWN,
    Histograms,
    concatenate,
    take,
)
from common.kernels.native_range import find_resets
from common.labels import METRIC_NAME
from common.store import Selection
from query.engine.cells import HistogramPool
from query.engine.native.ops import add, scale, table
from query.engine.values import Annotations
from query.promql.ast import Span
from query.promql.quoting import quote

STATISTICS = ("histogram_count", "histogram_sum", "histogram_avg")
"""Functions that need no buckets; Prometheus finds out about resets for them while it reads."""
WITH_BUCKETS = ("histogram_quantile", "histogram_quantiles", "histogram_fraction")

Cells = NDArray[np.float64]


def with_detected_resets(selection: Selection, pool: HistogramPool) -> Selection:
    """Histograms of which nobody said whether they begin anew say so, by comparison with the sample before."""
    index = pool.index(selection.values)
    if index is None:
        return selection
    rows = pool.rows()
    after = _successors(index, selection.offsets)
    after = after[rows.hints[index[after]] == HINT_UNKNOWN]
    if not len(after):
        return selection
    hints = np.where(_resets(rows, index[after - 1], index[after]), HINT_RESET, HINT_NOT_RESET)
    marked = replace(take(rows, index[after].astype(np.int64)), hints=hints.astype(np.uint8))
    values = selection.values.copy()
    values[after] = pool.add(marked)
    return replace(selection, values=values)


def each_reset_once(values: Cells, offsets: NDArray[np.int64], pool: HistogramPool) -> Cells:
    """A sample that a subquery gives several times in a row says only once that it begins anew."""
    index = pool.index(values)
    if index is None:
        return values
    after = _successors(index, offsets)
    after = after[index[after] == index[after - 1]]
    rows = pool.rows()
    after = after[rows.hints[index[after]] == HINT_RESET]
    if not len(after):
        return values
    again = take(rows, index[after].astype(np.int64))
    values = values.copy()
    values[after] = pool.add(replace(again, hints=np.full(len(again), HINT_NOT_RESET, dtype=np.uint8)))
    return values


def _successors(index: NDArray[np.int32], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places of histograms that follow a histogram of their series."""
    follows = np.zeros(len(index), dtype=np.bool_)
    follows[1:] = (index[1:] >= 0) & (index[:-1] >= 0)
    follows[offsets[:-1][offsets[:-1] < len(index)]] = False
    return np.flatnonzero(follows)


def _resets(rows: Histograms, before: NDArray[np.int32], after: NDArray[np.int32]) -> NDArray[np.bool_]:
    out = np.empty(len(before), dtype=np.bool_)
    find_resets(table(rows), before.astype(np.int64), after.astype(np.int64), out)
    return out


def interpolate_histograms(
    selection: Selection,
    ends: NDArray[np.int64],
    lookback_ms: int,
    values: Cells,
    present: NDArray[np.bool_],
    pool: HistogramPool,
    annotations: Annotations,
    span: Span,
) -> None:
    """Put histograms of a smoothed instant selector into `values` and `present`, (n_series, n_steps).

    They have the results of the floats, as if histograms were numbers: only the cells that lie on or beside a
    histogram are made anew. See the kernel `interpolate` for which samples count.
    """
    index = pool.index(selection.values)
    if index is None:
        return
    times, offsets = selection.timestamps, selection.offsets
    marks: NDArray[np.int64] = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(index >= 0, dtype=np.int64)))
    series = np.flatnonzero(marks[offsets[1:]] > marks[offsets[:-1]])
    for row in series.tolist():
        start, stop = int(offsets[row]), int(offsets[row + 1])
        before = start + np.searchsorted(times[start:stop], ends, side="right") - 1
        after = np.minimum(before + 1, stop - 1)
        steps = np.flatnonzero(present[row])
        at, next_ = before[steps], after[steps]
        alone = (times[at] == ends[steps]) | (next_ == at) | (times[next_] > ends[steps] + lookback_ms)
        first, second = index[at] >= 0, index[next_] >= 0
        single = alone & first
        values[row, steps[single]] = selection.values[at[single]]
        mixed = ~alone & (first != second)
        if mixed.any():
            present[row, steps[mixed]] = False
            name = selection.labels.labels(row).get(METRIC_NAME, "")
            annotations.warn(f"encountered a mix of histograms and floats for metric name {quote(name)}", span)
        both = np.flatnonzero(~alone & first & second)
        if not len(both):
            continue
        share = (ends[steps[both]] - times[at[both]]) / (times[next_[both]] - times[at[both]])
        made, incompatible = _between(pool, index[at[both]], index[next_[both]], share)
        values[row, steps[both]] = pool.add(made)
        if incompatible.any():
            present[row, steps[both[incompatible]]] = False
            name = selection.labels.labels(row).get(METRIC_NAME, "")
            annotations.warn(
                "vector contains a mix of histograms with exponential and custom buckets schemas for metric name "
                f"{quote(name)}",
                span,
            )


def _between(
    pool: HistogramPool, first: NDArray[np.int32], second: NDArray[np.int32], share: NDArray[np.float64]
) -> tuple[Histograms, NDArray[np.bool_]]:
    """Histograms on the line between two, and whether they could not be made; counters begin anew at zero."""
    a, b = pool.take(first.astype(np.int64)), pool.take(second.astype(np.int64))
    step = add(b, a, -1.0)
    there = add(scale(step.rows, share), a)
    gauge = (a.hints == HINT_GAUGE) | (b.hints == HINT_GAUGE)
    reset = _resets(pool.rows(), first, second) & ~gauge
    hints = np.where(gauge, HINT_GAUGE, HINT_UNKNOWN).astype(np.uint8)
    n = len(first)
    rows = take(concatenate([there.rows, scale(b, share)]), np.where(reset, n, 0) + np.arange(n))
    return replace(rows, hints=hints), (step.incompatible | there.incompatible) & ~reset
