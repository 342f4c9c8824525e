"""Late samples: which of them are not stored yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from common.kernels import head as kernels
from storage_node.reading import PartitionRead, read_rows
from storage_node.windows import WINDOW_MS, Segment

if TYPE_CHECKING:
    from storage_node.partition import PartitionState


def new_among(state: PartitionState, snos: NDArray[np.uint32], timestamps: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each of these samples, in the order of the log, is neither stored nor preceded by its equal; (n,).

    Looks in the head first, then window by window in those blocks that may have the sample. Raises DiskError.
    """
    order = np.lexsort((timestamps, snos))
    new = order[_unknown(state, snos[order], timestamps[order], [])]
    numbers = timestamps[new] // WINDOW_MS
    stored = np.zeros(len(new), dtype=np.bool_)
    for number in np.unique(numbers).tolist():
        window = state.windows.get(number)
        if window is not None and window.segments:
            here = np.flatnonzero(numbers == number)
            segments = [(number, segment) for segment in window.segments]
            stored[here] = ~_unknown(state, snos[new[here]], timestamps[new[here]], segments)
    is_new = np.zeros(len(snos), dtype=np.bool_)
    is_new[new[~stored]] = True
    return is_new


def _unknown(
    state: PartitionState,
    snos: NDArray[np.uint32],
    timestamps: NDArray[np.int64],
    segments: list[tuple[int, Segment]],
) -> NDArray[np.bool_]:
    """Which samples, ordered by series and time, are not in the segments; if none is given, not in the head."""
    is_first = np.ones(len(snos), dtype=np.bool_)
    np.not_equal(snos[1:], snos[:-1], out=is_first[1:])
    starts = np.flatnonzero(is_first)
    rows = snos[starts]
    unknown = np.ones(len(snos), dtype=np.bool_)
    if len(rows):
        first, last = int(timestamps.min()), int(timestamps.max())
        plan = state.plan_segments(rows, first, last, segments, with_head=not segments)
        stored_offsets, stored_times, _ = read_rows([PartitionRead(plan, state.segments)], len(rows))
        offsets = np.append(starts, len(snos)).astype(np.int64)
        kernels.find_new(offsets, timestamps, stored_offsets, stored_times, unknown)
    return unknown
