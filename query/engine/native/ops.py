"""Arithmetic of native histograms on columns, n rows at a time, as Prometheus 3.14 does it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.histograms import HINT_GAUGE, Histograms, room, take
from common.kernels import native_ops as kernels
from common.kernels.jit import for_kernels
from common.kernels.native_core import CLASH, INCOMPATIBLE, RECONCILED

Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Combined:
    """Results of adding, n rows, and what is to be said of each; bool (n,).

    incompatible: exponential and custom buckets met; the row means nothing. hint_clash: a counter that was reset
    and one that was not. bounds_reconciled: custom bounds differed, and those in common are left.
    """

    rows: Histograms
    incompatible: Bools
    hint_clash: Bools
    bounds_reconciled: Bools


def filled(rows: Histograms) -> Histograms:
    """Without the room that was not needed."""
    n_buckets, n_bounds = int(rows.bucket_offsets[-1]), int(rows.bound_offsets[-1])
    return replace(
        rows,
        bucket_keys=rows.bucket_keys[:n_buckets],
        bucket_counts=rows.bucket_counts[:n_buckets],
        bounds=rows.bounds[:n_bounds],
    )


def combined(rows: Histograms, flags: NDArray[np.uint8]) -> Combined:
    """With the flags of a kernel taken apart."""
    return Combined(filled(rows), (flags & INCOMPATIBLE) != 0, (flags & CLASH) != 0, (flags & RECONCILED) != 0)


def add(a: Histograms, b: Histograms, sign: float = 1.0) -> Combined:
    """a + b, or a - b with sign -1; a difference is a gauge."""
    assert len(a) == len(b)
    out = room(len(a), len(a.bucket_keys) + len(b.bucket_keys), len(a.bounds))
    flags = np.zeros(len(a), dtype=np.uint8)
    kernels.add_rows(table(a), table(b), sign, out.columns(), flags)
    return combined(out, flags)


def scale(histograms: Histograms, factors: Floats) -> Histograms:
    """Each times its factor, (n,); a negative one makes a gauge."""
    with np.errstate(all="ignore"):
        return _each(histograms, np.multiply, factors)


def negate(histograms: Histograms) -> Histograms:
    return scale(histograms, np.full(len(histograms), -1.0))


def divide(histograms: Histograms, divisors: Floats) -> Histograms:
    """Each by its divisor, (n,). Divided by 0, no buckets are left, and the rest is infinite or NaN."""
    zero = divisors == 0
    with np.errstate(all="ignore"):
        result = _each(histograms, np.divide, divisors)
    if not zero.any():
        return result
    sizes = np.diff(result.bucket_offsets)
    kept = np.repeat(~zero, sizes)
    offsets = np.zeros_like(result.bucket_offsets)
    np.cumsum(np.where(zero, 0, sizes), out=offsets[1:])
    return replace(
        result,
        bucket_offsets=offsets,
        bucket_keys=result.bucket_keys[kept],
        bucket_counts=result.bucket_counts[kept],
    )


def equal(a: Histograms, b: Histograms) -> Bools:
    """Whether rows are the same data, bool (n,): bits of numbers count, hints and empty buckets do not."""
    assert len(a) == len(b)
    rows = np.arange(len(a))
    return equal_rows(a, rows, b, rows)


def equal_rows(a: Histograms, rows: NDArray[np.int64], b: Histograms, others: NDArray[np.int64]) -> Bools:
    """`equal` of chosen rows."""
    out = np.empty(len(rows), dtype=np.bool_)
    kernels.equal(table(a), rows, table(b), others, out)
    return out


def sum_groups(
    histograms: Histograms, groups: NDArray[np.int32], n_groups: int, *, mean: bool = False
) -> Combined:
    """The sum or mean of each group's rows, added in order of the rows with compensation.

    groups: (m,), 0 … n_groups - 1 for each row. A group without rows gives a histogram of nothing.
    """
    rows = np.argsort(groups, kind="stable").astype(np.int64)
    edges = np.searchsorted(groups[rows], np.arange(n_groups + 1)).astype(np.int64)
    filled_groups = np.flatnonzero(np.diff(edges))
    result = sum_ranges(histograms, rows, edges[filled_groups], edges[filled_groups + 1], mean=mean)
    if len(filled_groups) == n_groups:
        return result
    places = np.full(n_groups, len(filled_groups), dtype=np.int64)
    places[filled_groups] = np.arange(len(filled_groups))
    nothing = np.zeros(1, dtype=np.bool_)
    return Combined(
        take(_with_nothing(result.rows), places),
        np.concatenate((result.incompatible, nothing))[places],
        np.concatenate((result.hint_clash, nothing))[places],
        np.concatenate((result.bounds_reconciled, nothing))[places],
    )


def sum_ranges(
    histograms: Histograms,
    rows: NDArray[np.int64],
    begins: NDArray[np.int64],
    ends: NDArray[np.int64],
    *,
    mean: bool = False,
) -> Combined:
    """The sum or mean of the histograms rows[begins[i]:ends[i]], none of which is empty."""
    sizes, bounds = _before(histograms.bucket_offsets, rows), _before(histograms.bound_offsets, rows)
    n_buckets, n_bounds = ((edges[ends] - edges[begins]).sum() for edges in (sizes, bounds))
    out = room(len(begins), int(n_buckets), int(n_bounds))
    flags = np.zeros(len(begins), dtype=np.uint8)
    kernels.sum_ranges(table(histograms), rows, begins, ends, mean, out.columns(), flags)
    return combined(out, flags)


def trim(histograms: Histograms, limits: Floats, *, upper: bool) -> Histograms:
    """Observations below (`upper`) or above each row's limit, (n,); their sum is an estimate."""
    result = replace(
        histograms,
        zero_counts=histograms.zero_counts.copy(),
        counts=histograms.counts.copy(),
        sums=histograms.sums.copy(),
        bucket_counts=histograms.bucket_counts.copy(),
    )
    kernels.trim_rows(table(result), np.ascontiguousarray(limits), upper)
    return result


def buckets(
    histograms: Histograms,
) -> tuple[NDArray[np.int64], NDArray[np.uint8], Floats, Floats, Floats]:
    """(offsets (n + 1,), boundary rules, lower, upper, counts): buckets that are not empty, by value.

    Boundary rules as in Prometheus' API: 0 (lower, upper], 1 [lower, upper), 3 [lower, upper].
    """
    n = len(histograms.bucket_keys) + len(histograms)
    offsets = np.zeros(len(histograms) + 1, dtype=np.int64)
    rules = np.empty(n, dtype=np.uint8)
    lower, upper, counts = np.empty(n), np.empty(n), np.empty(n)
    kernels.list_buckets(table(histograms), offsets, rules, lower, upper, counts)
    size = int(offsets[-1])
    return offsets, rules[:size], lower[:size], upper[:size], counts[:size]


def table(histograms: Histograms) -> tuple[NDArray[Any], ...]:
    """Kernels take writeable arrays only, whether they write or not."""
    return tuple(for_kernels(column) for column in histograms.columns())


def _each(histograms: Histograms, function: np.ufunc, numbers: Floats) -> Histograms:
    return replace(
        histograms,
        hints=np.where(numbers < 0, np.uint8(HINT_GAUGE), histograms.hints),
        zero_counts=function(histograms.zero_counts, numbers),
        counts=function(histograms.counts, numbers),
        sums=function(histograms.sums, numbers),
        bucket_counts=function(histograms.bucket_counts, np.repeat(numbers, np.diff(histograms.bucket_offsets))),
    )


def _before(offsets: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many things belong to the rows before each, in their order."""
    edges = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(offsets[rows + 1] - offsets[rows], out=edges[1:])
    return edges


def _with_nothing(rows: Histograms) -> Histograms:
    """With one more row, a histogram of nothing."""
    columns = [np.concatenate((column, np.zeros(1, dtype=column.dtype))) for column in rows.columns()[:6]]
    bucket_offsets = np.concatenate((rows.bucket_offsets, rows.bucket_offsets[-1:]))
    bound_offsets = np.concatenate((rows.bound_offsets, rows.bound_offsets[-1:]))
    columns += [bucket_offsets, rows.bucket_keys, rows.bucket_counts, bound_offsets, rows.bounds]
    return Histograms(*columns)
