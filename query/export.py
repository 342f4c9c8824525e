"""`/api/v1/export`: samples as they are stored, bit for bit, with stale markers and whole native histograms.

No query gives these: range vectors have no stale markers, and histograms of a query have lost their spans.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from common.store import Selection
from query.engine.labeling import order

MAX_EXPORTED = 2_000_000
"""Samples of one answer, unless the client says otherwise."""


def exported(found: Selection) -> Iterator[bytes]:
    """Chunks of an Arrow stream of these samples, series by series, sorted by labels."""
    from query.arrow_stream import encode_raw

    rows = order(found.labels)
    counts = np.diff(found.offsets)[rows]
    offsets = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)))
    moved = np.arange(int(offsets[-1])) + np.repeat(found.offsets[rows] - offsets[:-1], counts)
    numbers = None
    if found.histograms is not None:
        numbers = np.full(len(moved), -1, dtype=np.int64)
        numbers[found.histograms.positions] = np.arange(len(found.histograms))
        numbers = numbers[moved]
    columns = found.timestamps[moved], found.values[moved]
    return encode_raw(found.labels.take(rows), offsets, *columns, found.histograms, numbers)
