"""Native histograms as columns (`docs/format/histogram.md` says what they are as bytes)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
