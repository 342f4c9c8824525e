"""How much there is of each tenant: series from the index, samples from the headers of chunks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.store import MAX_TIME_MS, MIN_TIME_MS, TenantUsage
from common.tenants import TENANT_LABEL, tenant_named
from storage_node import keys
from storage_node.blocks import count_samples
from storage_node.errors import SegmentGone
from storage_node.views import Shard, Views
from storage_node.windows import Segment

READ_BLOCKS = 256
"""Blocks, of some 32 KiB, that are held at a time."""
_ATTEMPTS = 5


def usage_of(views: Views, shard: Shard, *, with_samples: bool) -> dict[str, TenantUsage]:
    """What a partition has of each tenant.

    A series counts if it has samples. Bytes are those of the blocks of samples, of each window by the tenants'
    shares of its samples, for they lie in the same blocks. What is deleted counts until the disk is rid of it.

    Raises:
        SegmentGone: windows were merged again and again meanwhile. ViewsDamaged, DiskError.
    """
    with shard.lock:
        n_series = len(shard.state.series)
        snos = shard.state.present(np.arange(n_series, dtype=np.uint32), MIN_TIME_MS, MAX_TIME_MS)
    values = shard.state.index.column(TENANT_LABEL, np.arange(n_series, dtype=np.uint32))
    codes, inverse = np.unique(values, return_inverse=True)
    row_of_sno: NDArray[np.int32] = inverse.astype(np.int32)
    n_present = np.bincount(row_of_sno[snos], minlength=len(codes))
    samples, sizes = np.zeros(len(codes), dtype=np.int64), np.zeros(len(codes), dtype=np.float64)
    if with_samples:
        with shard.lock:
            known = row_of_sno[shard.state.head.view().snos]
            samples += np.bincount(known, minlength=len(codes))
            windows = list(shard.state.windows)
        for window in windows:
            counts, n_bytes = _count_window(views, shard, window, row_of_sno, len(codes))
            samples += counts
            sizes += counts * (n_bytes / max(1, int(counts.sum())))
    names = [tenant_named(views.pool[code]) for code in codes.tolist()]
    rows = zip(names, n_present.tolist(), samples.tolist(), sizes.round().astype(np.int64).tolist(), strict=True)
    return {name: TenantUsage(*row) for name, *row in rows if any(row)}


def _count_window(
    views: Views, shard: Shard, window: int, row_of_sno: NDArray[np.int32], n_rows: int
) -> tuple[NDArray[np.int64], int]:
    """Samples of a window by row, and the bytes of its blocks."""
    for _ in range(_ATTEMPTS):
        with shard.lock:
            known = shard.state.windows.get(window)
            segments = [] if known is None else list(known.segments)
        counts = np.zeros(n_rows, dtype=np.int64)
        try:
            for segment in segments:
                _count_segment(views, shard.state.partition, window, segment, row_of_sno, counts)
        except SegmentGone:
            continue
        return counts, sum(segment.size_bytes for segment in segments)
    raise SegmentGone


def _count_segment(
    views: Views,
    partition: int,
    window: int,
    segment: Segment,
    row_of_sno: NDArray[np.int32],
    counts: NDArray[np.int64],
) -> None:
    for first in range(0, segment.n_blocks, READ_BLOCKS):
        numbers = range(first, min(first + READ_BLOCKS, segment.n_blocks))
        names = [keys.segment_block(partition, window, segment.number, block) for block in numbers]
        found = views.disk.get_many(names)
        blocks = [block for block in found if block is not None]
        if len(blocks) < len(found):
            raise SegmentGone
        count_samples(blocks, row_of_sno, MIN_TIME_MS, MAX_TIME_MS, counts)
