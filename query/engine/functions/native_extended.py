"""rate, increase and delta over anchored and smoothed ranges of native histograms.

Source: Prometheus' `promql/functions.go` (extendedHistogramRate, correctForCounterResetsHistogram).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.histograms import CUSTOM_BOUNDS, HINT_GAUGE, HINT_UNKNOWN, Histograms, concatenate, take
from common.kernels import native_range as kernels
from common.kernels import window
from query.engine.functions.native_windows import Windows, counted, tell, tell_mixed
from query.engine.native import ops
from query.engine.values import Context, RangeVector, Vector
from query.promql.ast import Span

Places: TypeAlias = NDArray[np.int64]
Flags: TypeAlias = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class _Spans:
    """Windows that have a difference, m of them: samples [firsts, lasts], the times of their edges."""

    firsts: Places
    lasts: Places
    begins: Places
    ends: Places
    has_before_last: NDArray[np.bool_]


def extended_difference(
    op: int, smoothed: bool, context: Context, samples: RangeVector, floats: Vector, span: Span
) -> Vector:
    """The difference, given the result without histograms."""
    after_ms = context.lookback_ms if smoothed else 0
    wide = replace(
        samples, ends=samples.ends + after_ms, range_ms=samples.range_ms + context.lookback_ms + after_ms
    )
    windows = Windows.of(wide)
    tell_mixed(context, windows, windows.mixed, span)
    held = (windows.n_histograms > 0) & ~windows.mixed
    floats = replace(floats, present=floats.present & (windows.n_histograms == 0))
    cells, spans = _spans(windows, Windows.of(samples), held, smoothed)
    flags = np.zeros(len(spans.firsts), dtype=np.uint8)
    counter = op != window.DELTA
    _validate(windows, spans, counter, flags)
    rows = _differences(windows, spans, counter, smoothed, flags)
    if op == window.RATE:
        range_s = samples.range_ms // 1000 + samples.range_ms % 1000 * 1_000_000 / 1e9
        rows = ops.divide(rows, np.full(len(rows), range_s))
    said = np.zeros(cells.shape, dtype=np.uint8)
    said[cells] = flags
    tell(context, windows, said, span)
    good = (flags & kernels.MIXED_SCHEMAS) == 0
    return windows.vector(floats, cells & ((said & kernels.MIXED_SCHEMAS) == 0), take(rows, np.flatnonzero(good)))


def _spans(
    wide: Windows, inner: Windows, held: NDArray[np.bool_], smoothed: bool
) -> tuple[NDArray[np.bool_], _Spans]:
    """Which windows have a difference, and where its ends are."""
    times = np.append(wide.samples.timestamps, np.iinfo(np.int64).max)
    ends = np.broadcast_to(inner.samples.ends, held.shape)
    begins = ends - inner.samples.range_ms
    lasts = wide.stops - 1
    firsts = np.maximum(wide.firsts, np.minimum(inner.firsts, lasts) - 1)
    if smoothed:
        at_end = inner.stops - ((inner.stops > wide.firsts) & (times[inner.stops - 1] == ends))
        lasts = np.minimum(at_end, lasts)
    cells = held & (times[np.maximum(lasts, 0)] > begins) & (lasts >= wide.firsts)
    if smoothed:
        cells &= times[np.maximum(firsts, 0)] <= ends
    chosen = (firsts, lasts, begins, ends, lasts > wide.firsts)
    return cells, _Spans(*(np.ascontiguousarray(array[cells]) for array in chosen))


def _validate(windows: Windows, spans: _Spans, counter: bool, flags: Flags) -> None:
    index = np.maximum(windows.index, 0)
    custom = counted(np.equal(windows.rows.schemas[index], CUSTOM_BOUNDS))
    gauges = counted(windows.rows.hints[index] == HINT_GAUGE)
    stops = spans.lasts + 1
    n_custom = custom[stops] - custom[spans.firsts]
    flags[(n_custom > 0) & (n_custom < stops - spans.firsts)] |= kernels.MIXED_SCHEMAS
    if counter:
        flags[gauges[stops] > gauges[spans.firsts]] |= kernels.NOT_COUNTER


def _differences(windows: Windows, spans: _Spans, counter: bool, smoothed: bool, flags: Flags) -> Histograms:
    times = windows.samples.timestamps
    at_left = np.zeros(len(spans.firsts), dtype=np.bool_)
    at_right = at_left
    if smoothed:
        at_left = times[spans.firsts] < spans.begins
        at_right = spans.has_before_last & (times[spans.lasts] > spans.ends)
    left = _edge(windows, spans.firsts, spans.firsts, at_left, spans.begins, counter, flags)
    right = _edge(windows, spans.lasts, spans.lasts - 1, at_right, spans.ends, counter, flags)
    if not counter:
        flags[(left.hints != HINT_GAUGE) | (right.hints != HINT_GAUGE)] |= kernels.NOT_GAUGE
    result = _said(ops.add(right, left, -1.0), kernels.SUBTRACTED, flags)
    if counter:
        cells, rows = _corrections(windows, spans, left, right, at_left)
        present = np.unique(cells)
        if len(present):
            groups = np.searchsorted(present, cells).astype(np.int32)
            correction = ops.sum_groups(rows, groups, len(present)).rows
            every = np.full(len(result), len(present), dtype=np.int64)
            every[present] = np.arange(len(present))
            added = _said(ops.add(take(result, present), correction), kernels.ADDED, flags, present)
            keep = np.where(every < len(present), len(result) + every, np.arange(len(result)))
            result = take(concatenate([result, added]), keep)
    return replace(result, hints=np.full(len(result), HINT_GAUGE, dtype=np.uint8))


def _edge(
    windows: Windows,
    plain: Places,
    before: Places,
    between: NDArray[np.bool_],
    at: Places,
    counter: bool,
    flags: Flags,
) -> Histograms:
    """The histograms at one edge of the windows: samples, or interpolated where it lies between two."""
    index = windows.index.astype(np.int64)
    rows = take(windows.rows, index[plain])
    places = np.flatnonzero(between)
    if not len(places):
        return rows
    first = before[places]
    times = windows.samples.timestamps
    share = (at[places] - times[first]) / (times[first + 1] - times[first])
    a, b = take(windows.rows, index[first]), take(windows.rows, index[first + 1])
    difference = _said(ops.add(b, a, -1.0), kernels.SUBTRACTED, flags, places)
    there = _said(ops.add(ops.scale(difference, share), a), kernels.ADDED, flags, places)
    either = np.where((a.hints == HINT_GAUGE) | (b.hints == HINT_GAUGE), HINT_GAUGE, HINT_UNKNOWN)
    there = replace(there, hints=np.where(a.hints == b.hints, a.hints, either).astype(np.uint8))
    if counter:
        # After a reset the counter is taken to have begun at zero.
        reset = windows.resets()[first + 1]
        chosen = np.where(reset, len(places), 0) + np.arange(len(places))
        there = take(concatenate([there, ops.scale(b, share)]), chosen)
    rank = np.arange(len(rows))
    rank[places] = len(rows) + np.arange(len(places))
    return take(concatenate([rows, there]), rank)


def _corrections(
    windows: Windows, spans: _Spans, left: Histograms, right: Histograms, at_left: NDArray[np.bool_]
) -> tuple[Places, Histograms]:
    """What counters held before each reset inside the windows: its window, ascending, and the histogram."""
    m, n = len(spans.firsts), len(windows.rows)
    index, resets = windows.index.astype(np.int64), windows.resets()
    table = concatenate([windows.rows, left, right])
    cells = np.arange(m)
    # Interpolation at the left edge has dealt with a reset just behind it.
    next_ = np.minimum(spans.firsts + 1, spans.lasts)
    skipped = at_left & resets[next_]
    previous = np.where(skipped, index[next_], n + cells)
    begins = spans.firsts + 1 + skipped
    open_ = np.flatnonzero(begins <= spans.lasts)
    inside = np.flatnonzero(begins < spans.lasts)
    before = np.where(begins < spans.lasts, index[np.maximum(spans.lasts - 1, 0)], previous)
    at_first = _reset_between(table, previous[inside], index[begins[inside]])
    at_last = _reset_between(table, before[open_], n + m + open_)
    sizes = np.maximum(spans.lasts - begins - 1, 0)
    owners = np.repeat(cells, sizes)
    places = (
        np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes) + np.repeat(begins + 1, sizes)
    )
    within = resets[places]
    owner = np.concatenate((inside[at_first], owners[within], open_[at_last]))
    rows = np.concatenate((previous[inside[at_first]], index[places[within] - 1], before[open_[at_last]]))
    order = np.argsort(owner, kind="stable")
    return owner[order], take(table, rows[order])


def _reset_between(table: Histograms, before: Places, after: Places) -> NDArray[np.bool_]:
    out = np.empty(len(before), dtype=np.bool_)
    kernels.find_resets(ops.table(table), before, after, out)
    return out


def _said(result: ops.Combined, flag: int, flags: Flags, places: Places | None = None) -> Histograms:
    """The rows of an addition; puts down what is to be said of it."""
    said = np.where(result.bounds_reconciled, np.uint8(flag), np.uint8(0))
    said |= np.where(result.incompatible, np.uint8(kernels.MIXED_SCHEMAS), np.uint8(0))
    if places is None:
        flags |= said
    else:
        flags[places] |= said
    return result.rows
