"""Native histograms as columns (`docs/format/histogram.md` says what they are as bytes)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import CorruptError
from common.kernels.native_decode import decode_histograms

HINT_UNKNOWN, HINT_RESET, HINT_NOT_RESET, HINT_GAUGE = range(4)
CUSTOM_BOUNDS = -53
"""The schema of histograms with custom bucket bounds."""
NEGATIVE = -(1 << 40)
"""Added to the index of a negative bucket to make its key; the keys of positive buckets are their indices."""


@dataclass(frozen=True, slots=True, eq=False)
class Histograms:
    """Histograms, n of them, with float counts.

    hints: uint8 (n,), HINT_… . schemas: int32 (n,).
    zero_thresholds, zero_counts, counts, sums: float64 (n,); the first two are 0 with custom bounds.
    bucket_offsets: int64 (n + 1,); the buckets of histogram i are at [bucket_offsets[i], bucket_offsets[i + 1]) of
      bucket_keys: int64, ascending within a histogram: a bucket's index if positive, index + NEGATIVE if negative.
      bucket_counts: float64, not cumulative. Empty buckets need not be there, and mean the same if they are.
    bound_offsets: int64 (n + 1,) into
      bounds: float64, upper bounds of custom buckets, without +Inf; none for other schemas.
    """

    hints: NDArray[np.uint8]
    schemas: NDArray[np.int32]
    zero_thresholds: NDArray[np.float64]
    zero_counts: NDArray[np.float64]
    counts: NDArray[np.float64]
    sums: NDArray[np.float64]
    bucket_offsets: NDArray[np.int64]
    bucket_keys: NDArray[np.int64]
    bucket_counts: NDArray[np.float64]
    bound_offsets: NDArray[np.int64]
    bounds: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.schemas)

    def columns(self) -> tuple[NDArray[Any], ...]:
        """The columns in order, as kernels take them."""
        return (
            self.hints,
            self.schemas,
            self.zero_thresholds,
            self.zero_counts,
            self.counts,
            self.sums,
            self.bucket_offsets,
            self.bucket_keys,
            self.bucket_counts,
            self.bound_offsets,
            self.bounds,
        )


@dataclass(frozen=True, slots=True, eq=False)
class EncodedHistograms:
    """Which samples of a selection are histograms, and their bytes; m of them.

    positions: int64 (m,), ascending: places among the samples. The float values there mean nothing.
    offsets: int64 (m + 1,) into data, uint8.
    """

    positions: NDArray[np.int64]
    offsets: NDArray[np.int64]
    data: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.positions)


def empty() -> Histograms:
    """No histograms."""
    return room(0, 0, 0)


def decode(encoded: EncodedHistograms) -> Histograms:
    """Histograms from their bytes; row i is that of `encoded.positions[i]`.

    Raises:
        CorruptError: one is not as `docs/format/histogram.md` says.
    """
    n = len(encoded)
    data = np.require(encoded.data, dtype=np.uint8, requirements=("C", "W"))
    offsets = np.require(encoded.offsets, dtype=np.int64, requirements=("C", "W"))
    sizes = room(n, 0, 0)
    scalars = np.zeros((4, n))
    for fill in (False, True):
        into = room(n, int(sizes.bucket_offsets[-1]), int(sizes.bound_offsets[-1])) if fill else sizes
        row = decode_histograms(data, offsets, fill, into.hints, into.schemas, scalars, *into.columns()[6:])
        if row >= 0:
            raise CorruptError(f"histogram {row} of {n} is not a histogram")
    return replace(into, zero_thresholds=scalars[0], zero_counts=scalars[1], counts=scalars[2], sums=scalars[3])


def take(histograms: Histograms, rows: NDArray[np.integer[Any]]) -> Histograms:
    """These rows, in this order."""
    bucket_offsets, buckets = _gather(histograms.bucket_offsets, rows)
    bound_offsets, bounds = _gather(histograms.bound_offsets, rows)
    columns: list[NDArray[Any]] = [column[rows] for column in histograms.columns()[:6]]
    columns += [bucket_offsets, histograms.bucket_keys[buckets], histograms.bucket_counts[buckets]]
    columns += [bound_offsets, histograms.bounds[bounds]]
    return Histograms(*columns)


def concatenate(parts: Sequence[Histograms]) -> Histograms:
    """All rows of the parts, one part after the other."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return empty()
    columns = [np.concatenate(column) for column in zip(*(part.columns() for part in parts), strict=True)]
    for at in (6, 9):
        sizes = np.concatenate([np.diff(part.columns()[at]) for part in parts])
        columns[at] = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(sizes, dtype=np.int64)))
    return Histograms(*columns)


def _gather(
    offsets: NDArray[np.int64], rows: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Offsets of the chosen rows, and the places of what is theirs."""
    starts = offsets[rows]
    sizes = offsets[np.asarray(rows) + 1] - starts
    chosen = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(sizes, out=chosen[1:])
    return chosen, np.arange(int(chosen[-1])) + np.repeat(starts - chosen[:-1], sizes)


def room(n: int, n_buckets: int, n_bounds: int) -> Histograms:
    """Columns for kernels to fill; what is not filled costs no memory."""
    offsets = np.zeros(n + 1, dtype=np.int64)
    return Histograms(
        np.empty(n, dtype=np.uint8),
        np.empty(n, dtype=np.int32),
        np.empty(n),
        np.empty(n),
        np.empty(n),
        np.empty(n),
        offsets,
        np.empty(n_buckets, dtype=np.int64),
        np.empty(n_buckets),
        offsets.copy(),
        np.empty(n_bounds),
    )
