"""Functions of range vectors in which there are native histograms.

What looks at floats alone is computed without the histograms by `windows`; here is what becomes of the windows
that hold histograms, and what is said of those that hold both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.histograms import Histograms, concatenate, room, take
from common.kernels import native_range as kernels
from common.kernels import window
from common.kernels.jit import for_kernels
from common.labels import METRIC_NAME, LabelTable
from query.engine.functions.registry import range_of, span_of, vector_of
from query.engine.native import ops
from query.engine.values import Context, HistogramCells, RangeVector, Value, Vector
from query.promql.ast import Call, Span
from query.promql.quoting import quote

_BLOCK = 1 << 22
"""Buckets, or more for one window, for which a kernel is given room at a time."""
Cells = NDArray[np.bool_]


def without_histograms(value: Value) -> Value:
    """The value with its histograms gone: what most functions see of it."""
    if isinstance(value, Vector) and value.histograms is not None:
        return replace(value, present=value.present & (value.histograms.index < 0), histograms=None)
    if isinstance(value, RangeVector) and value.histograms is not None:
        floats = value.histograms.index < 0
        before = counted(floats)
        return replace(
            value,
            offsets=before[value.offsets],
            timestamps=value.timestamps[floats],
            values=value.values[floats],
            histograms=None,
        )
    return value


def names_of(labels: LabelTable, rows: NDArray[np.bool_]) -> list[str]:
    """The different metric names of these series, the empty one too."""
    return [labels.pool[code] for code in np.unique(labels.column(METRIC_NAME)[rows]).tolist()]


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Where the windows of a range vector lie among its samples, (n_series, n_steps), and what is in them.

    firsts, stops: samples are at [firsts, stops). begins, n_histograms: which of all the histograms are in it.
    """

    samples: RangeVector
    index: NDArray[np.int32]
    rows: Histograms
    firsts: NDArray[np.int64]
    stops: NDArray[np.int64]
    begins: NDArray[np.int64]
    n_histograms: NDArray[np.int64]

    @classmethod
    def of(cls, samples: RangeVector) -> Windows:
        cells = samples.histograms
        assert cells is not None
        firsts = np.empty((len(samples.labels), len(samples.ends)), dtype=np.int64)
        stops = np.empty_like(firsts)
        kernels.window_edges(
            *_writeable(samples.offsets, samples.timestamps, samples.ends), samples.range_ms, firsts, stops
        )
        before = counted(cells.index >= 0)
        begins = before[firsts]
        return cls(samples, cells.index, cells.rows, firsts, stops, begins, before[stops] - begins)

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many samples there are in each."""
        return self.stops - self.firsts

    @property
    def mixed(self) -> Cells:
        """Windows with floats and histograms."""
        return (self.n_histograms > 0) & (self.n_histograms < self.counts)

    def name_by_name(self, cells: Cells) -> list[str]:
        """Metric names of series with such windows."""
        return names_of(self.samples.labels, np.any(cells, axis=1))

    def vector(self, base: Vector, cells: Cells, rows: Histograms) -> Vector:
        """The vector with histogram i in the i-th of these cells."""
        index = np.full(cells.shape, -1, dtype=np.int32)
        index[cells] = np.arange(len(rows), dtype=np.int32)
        present = base.present | cells
        return replace(base, present=present, histograms=HistogramCells(index, rows) if len(rows) else None)

    def resets(self) -> NDArray[np.bool_]:
        """bool (n_samples,): whether between a sample and the one before, both histograms, there is a reset."""
        return self._compared(kernels.find_resets)

    def changes(self) -> NDArray[np.bool_]:
        """bool (n_samples,): whether a sample differs from the one before, both histograms."""

        def differ(table: Any, before: NDArray[np.int64], after: NDArray[np.int64], out: Cells) -> None:
            out[:] = ~ops.equal_rows(self.rows, before, self.rows, after)

        return self._compared(differ)

    def _compared(self, compare: Callable[..., Any]) -> NDArray[np.bool_]:
        result = np.zeros(len(self.index), dtype=np.bool_)
        pairs = 1 + np.flatnonzero((self.index[1:] >= 0) & (self.index[:-1] >= 0))
        out = np.empty(len(pairs), dtype=np.bool_)
        before, after = self.index[pairs - 1].astype(np.int64), self.index[pairs].astype(np.int64)
        compare(ops.table(self.rows), before, after, out)
        result[pairs] = out
        return result


def ignored(context: Context, args: tuple[Value, ...], call: Call) -> tuple[Value, ...]:
    """The arguments without histograms; says so of ranges in which there were floats too."""
    for arg in args:
        if isinstance(arg, RangeVector) and arg.histograms is not None:
            windows = Windows.of(arg)
            for name in windows.name_by_name(windows.mixed):
                message = "ignored histograms in a range containing both floats and histograms for metric name"
                context.annotations.info(f"{message} {quote(name)}", span_of(call, 0))
    return tuple(without_histograms(arg) for arg in args)


def difference(op: int, context: Context, samples: RangeVector, floats: Vector, span: Span) -> Vector:
    """rate, increase, delta, irate, idelta, given the result without histograms."""
    windows = Windows.of(samples)
    if op in (window.IRATE, window.IDELTA):
        edges = (windows.stops - 2, windows.stops)
        before = counted(windows.index >= 0)
        latest = np.where(windows.counts < 2, 0, before[edges[1]] - before[np.maximum(edges[0], 0)])
        mixed, cells, firsts = latest == 1, latest == 2, edges[0]
    else:
        mixed, firsts = windows.mixed, windows.firsts
        cells = (windows.n_histograms == windows.counts) & (windows.counts > 1)
    tell_mixed(context, windows, mixed, span)
    floats = replace(floats, present=floats.present & ~mixed & ~cells)
    rows, flags = _rates(op, context, windows, firsts[cells], windows.stops[cells], np.nonzero(cells)[1])
    said = np.zeros(cells.shape, dtype=np.uint8)
    said[cells] = flags
    tell(context, windows, said, span)
    good = (flags & kernels.MIXED_SCHEMAS) == 0
    if not good.all():
        rows = take(rows, np.flatnonzero(good))
        cells = cells & ((said & kernels.MIXED_SCHEMAS) == 0)
    return windows.vector(floats, cells, rows)


def _rates(
    op: int,
    context: Context,
    windows: Windows,
    firsts: NDArray[np.int64],
    stops: NDArray[np.int64],
    steps: NDArray[np.intp],
) -> tuple[Histograms, NDArray[np.uint8]]:
    samples, table = windows.samples, ops.table(windows.rows)
    rows, resets = windows.index.astype(np.int64), windows.resets()
    range_s = samples.range_ms // 1000 + samples.range_ms % 1000 * 1_000_000 / 1e9
    ends = samples.ends[steps]
    sizes = (_sizes(windows.rows.bucket_offsets, rows), _sizes(windows.rows.bound_offsets, rows))
    flags = np.zeros(len(firsts), dtype=np.uint8)
    (timestamps,) = _writeable(samples.timestamps)
    parts = []
    for part in _blocks(context, sizes[0][stops] - sizes[0][firsts]):
        begin, stop = np.ascontiguousarray(firsts[part]), np.ascontiguousarray(stops[part])
        n_buckets, n_bounds = (int((size[stop] - size[begin]).sum()) for size in sizes)
        out = room(len(begin), n_buckets, n_bounds)
        about = (rows, resets, timestamps, begin, stop, ends[part], samples.range_ms, range_s)
        kernels.rates(op, table, *about, out.columns(), flags[part])
        parts.append(ops.filled(out))
    return concatenate(parts), flags


def tell_mixed(context: Context, windows: Windows, cells: Cells, span: Span) -> None:
    """Warn of windows with floats and histograms where only one of them will do."""
    for name in windows.name_by_name(cells):
        message = f"encountered a mix of histograms and floats for metric name {quote(name)}"
        context.annotations.warn(message, span)


def tell(context: Context, windows: Windows, said: NDArray[np.uint8], span: Span) -> None:
    """Warnings and infos of the flags of `kernels.rates`, (n_series, n_steps)."""
    mixed = "vector contains a mix of histograms with exponential and custom buckets schemas for metric name"
    for flag, message in (
        (kernels.NOT_COUNTER, "this native histogram metric is not a counter:"),
        (kernels.NOT_GAUGE, "this native histogram metric is not a gauge:"),
        (kernels.MIXED_SCHEMAS, mixed),
    ):
        for name in windows.name_by_name((said & flag) != 0):
            context.annotations.warn(f"{message} {quote(name)}", span)
    for flag, operation in ((kernels.SUBTRACTED, "subtraction"), (kernels.ADDED, "addition")):
        if ((said & flag) != 0).any():
            context.annotations.info(f"mismatched custom buckets were reconciled during {operation}", span)


def events(op: int, samples: RangeVector, floats: Vector, lookback_ms: int | None) -> Vector:
    """resets or changes over windows of floats and histograms; lookback_ms only for anchored ranges."""
    windows = Windows.of(samples)
    is_histogram = windows.index >= 0
    found = windows.resets() if op == window.RESETS else windows.changes()
    before, after = samples.values[:-1], samples.values[1:]
    with np.errstate(invalid="ignore"):
        moved = after < before
        if op == window.CHANGES:
            moved = (after != before) & ~(np.isnan(after) & np.isnan(before))
    both_floats = ~is_histogram[1:] & ~is_histogram[:-1]
    found[1:] |= np.where(both_floats, moved, is_histogram[1:] != is_histogram[:-1])
    total = counted(found)
    firsts = windows.firsts
    if lookback_ms is not None:
        # An anchored window begins with the sample before it, if that is not too old.
        earlier = np.maximum(firsts - 1, samples.offsets[:-1, np.newaxis])
        if len(samples.timestamps):
            times = samples.timestamps[np.minimum(earlier, len(samples.timestamps) - 1)]
            near = times > samples.ends - samples.range_ms - lookback_ms
            firsts = np.where(near, earlier, firsts)
    present = windows.counts > 0
    values = np.where(present, total[windows.stops] - total[np.minimum(firsts + 1, windows.stops)], 0)
    return replace(floats, values=values.astype(np.float64), present=present)


def summed(context: Context, samples: RangeVector, floats: Vector, span: Span, *, mean: bool) -> Vector:
    """sum_over_time and avg_over_time, given the result without histograms."""
    windows = Windows.of(samples)
    mixed = windows.mixed
    tell_mixed(context, windows, mixed, span)
    cells = (windows.n_histograms > 0) & ~mixed
    floats = replace(floats, present=floats.present & (windows.n_histograms == 0))
    begins, counts = windows.begins[cells], windows.n_histograms[cells]
    chosen = windows.index[windows.index >= 0].astype(np.int64)
    sizes = _sizes(windows.rows.bucket_offsets, chosen)
    parts = [
        ops.sum_ranges(windows.rows, chosen, begins[part], (begins + counts)[part], mean=mean)
        for part in _blocks(context, sizes[begins + counts] - sizes[begins])
    ]
    if not parts:
        return floats
    rows = concatenate([part.rows for part in parts])
    incompatible = np.zeros(cells.shape, dtype=np.bool_)
    incompatible[cells] = np.concatenate([part.incompatible for part in parts])
    for name in windows.name_by_name(incompatible):
        message = "vector contains a mix of histograms with exponential and custom buckets schemas for metric name"
        context.annotations.warn(f"{message} {quote(name)}", span)
    if any((part.hint_clash & ~part.incompatible).any() for part in parts):
        context.annotations.warn("conflicting counter resets during histogram aggregation", span)
    if any((part.bounds_reconciled & ~part.incompatible).any() for part in parts):
        context.annotations.info("mismatched custom buckets were reconciled during aggregation", span)
    if incompatible.any():
        rows = take(rows, np.flatnonzero(~incompatible[cells]))
    return windows.vector(floats, cells & ~incompatible, rows)


def picked(samples: RangeVector, result: Vector, *, last: bool) -> Vector:
    """first_over_time and last_over_time, given the result as if all samples were floats."""
    assert samples.histograms is not None
    windows = Windows.of(samples)
    present = windows.counts > 0
    places = np.where(present, windows.stops - 1 if last else windows.firsts, 0)
    index = np.where(present, windows.index[places], np.int32(-1)).astype(np.int32)
    return replace(result, histograms=HistogramCells(index, windows.rows))


def stripped(samples: RangeVector) -> RangeVector:
    return range_of(without_histograms(samples))


def floats_of(vector: Vector) -> Vector:
    return vector_of(without_histograms(vector))


def counted(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many are True before each place, and in all."""
    out = np.zeros(len(mask) + 1, dtype=np.int64)
    np.cumsum(mask, out=out[1:])
    return out


def _sizes(offsets: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """How much belongs to the rows before each, in their order; nothing to row -1."""
    out = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(np.where(rows < 0, 0, offsets[rows + 1] - offsets[np.maximum(rows, 0)]), out=out[1:])
    return out


def _blocks(context: Context, sizes: NDArray[np.int64]) -> Iterator[slice]:
    """Slices of what has these sizes, none much larger than _BLOCK; before each the query may end."""
    if not len(sizes):
        return
    edges = np.flatnonzero(np.diff(np.cumsum(sizes) // _BLOCK, prepend=-1)).tolist()
    for begin, end in zip(edges, [*edges[1:], len(sizes)], strict=True):
        context.check()
        yield slice(begin, end)


def _writeable(*arrays: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    return tuple(for_kernels(array) for array in arrays)
