"""Merging the segments of a window into one, so that reads find few and long rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from common.store import MAX_TIME_MS, MIN_TIME_MS
from storage_node import keys
from storage_node.blocks import (
    EncodedBlocks,
    block_rows,
    count_samples,
    decode_samples,
    encode_blocks,
    finish_rows,
)
from storage_node.disk import Batch, Disk
from storage_node.errors import SegmentGone
from storage_node.partition import PartitionState
from storage_node.reading import erase_deleted
from storage_node.segments import Segments
from storage_node.windows import Deletion, Segment

MIN_SEGMENTS = 8
"""Segments of a window that still grows are merged from this number on."""
CHUNK_SAMPLES = 2 << 20
"""About how many samples a merge holds decoded at a time."""
_OPEN_WINDOWS = 2


@dataclass(frozen=True, slots=True, eq=False)
class MergePlan:
    """Which segments to merge, the order of rows at that moment, and what is deleted in all of the segments."""

    partition: int
    window: int
    old: list[Segment]
    order_keys: NDArray[np.uint64]
    deletions: tuple[Deletion, ...] = ()


def plan_merge(state: PartitionState, least: int = MIN_SEGMENTS) -> MergePlan | None:
    """The next merge that is worth its while, if there is one; in a growing window of `least` segments."""
    newest = sorted(state.windows)[-_OPEN_WINDOWS:]
    for number, window in state.windows.items():
        if number in state.deletions:
            # What is deleted holds for some of its segments only; `purging` sees to them first.
            continue
        old = choose(window.segments, least if number in newest else 2)
        if old:
            return MergePlan(state.partition, number, old, state.order_keys())
    return None


def choose(segments: list[Segment], least: int) -> list[Segment]:
    """Segments to merge: as many as possible, at least `least`, of which none is larger than all others together.

    Thus what a sample costs in rewriting grows with the logarithm of the number of segments.
    """
    by_size = sorted(segments, key=lambda segment: (segment.n_samples, segment.number))
    for n in range(len(by_size), least - 1, -1):
        if by_size[n - 1].n_samples <= sum(segment.n_samples for segment in by_size[: n - 1]):
            return by_size[:n]
    return []


def merge(plan: MergePlan, segments: Segments, disk: Disk) -> tuple[Batch, Segment | None]:
    """Prepare a merge; needs no lock. `checkpoint.commit_merge` commits it. No segment if everything is deleted.

    Raises:
        SegmentGone: the window has expired meanwhile.
    """
    parts: list[EncodedBlocks] = []
    order_keys: list[NDArray[np.uint64]] = []
    n_samples = 0
    for blocks, first_key, end_key in _chunks(plan, segments, disk):
        snos = np.unique(block_rows(blocks).sno)
        row_keys = plan.order_keys[snos]
        inside = (row_keys >= np.uint64(first_key)) & (row_keys < np.uint64(end_key))
        order = np.argsort(row_keys[inside])
        snos, row_keys = snos[inside][order], row_keys[inside][order]
        if not len(snos):
            continue
        offsets, timestamps, value_bits = _decode(blocks, snos, plan)
        if plan.deletions:
            filled = np.flatnonzero(np.diff(offsets))
            snos, row_keys, offsets = snos[filled], row_keys[filled], np.append(offsets[filled], offsets[-1])
            if not len(snos):
                continue
        parts.append(encode_blocks(snos, offsets, timestamps, value_bits))
        order_keys.append(row_keys)
        n_samples += len(timestamps)
    batch = Batch()
    if not parts:
        return batch, None
    # Checkpoints number segments in steps of 2^16, so that this number is new.
    number = max(segment.number for segment in plan.old) + 1
    rows = np.concatenate(order_keys)
    return batch, segments.put(batch, plan.partition, plan.window, number, rows, parts, n_samples)


def merge_attached(state: PartitionState, lock: Lock) -> bool:
    """Do one merge of attachments, if one is worth its while. Raises DiskError, ViewsDamaged."""
    with lock:
        plan = state.attached.plan_merge()
    if plan is None:
        return False
    window, runs = plan
    try:
        batch = Batch()
        merged = state.attached.merge(window, runs, batch)
    except SegmentGone:
        return True
    with lock:
        state.attached.commit_merge(window, runs, merged, batch)
    return True


def _chunks(plan: MergePlan, segments: Segments, disk: Disk) -> Iterator[tuple[list[bytes], int, int]]:
    """Blocks with all rows of one range of order keys after the other: (blocks, first key, end key)."""
    directories = [segments.directory(plan.partition, plan.window, old.number) for old in plan.old]
    first_keys = np.sort(np.concatenate([directory.first_keys for directory in directories]))
    n_chunks = -(-sum(old.n_samples for old in plan.old) // CHUNK_SAMPLES)
    cuts = np.unique(first_keys[np.arange(1, n_chunks) * len(first_keys) // n_chunks]).tolist()
    bounds = [0, *cuts, (1 << 64) - 1]
    for first_key, end_key in pairwise(bounds):
        names = []
        for old, directory in zip(plan.old, directories, strict=True):
            first = int(np.searchsorted(directory.first_keys, np.uint64(first_key), side="right")) - 1
            end = int(np.searchsorted(directory.first_keys, np.uint64(end_key)))
            for block in range(max(first, 0), end):
                names.append(keys.segment_block(plan.partition, plan.window, old.number, block))
        found = disk.get_many(names)
        blocks = [block for block in found if block is not None]
        if len(blocks) < len(found):
            raise SegmentGone
        yield blocks, first_key, end_key


def _decode(
    blocks: list[bytes], snos: NDArray[np.uint32], plan: MergePlan
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
    row_of_sno = np.full(len(plan.order_keys), -1, dtype=np.int32)
    row_of_sno[snos] = np.arange(len(snos), dtype=np.int32)
    counts = np.zeros(len(snos), dtype=np.int64)
    count_samples(blocks, row_of_sno, MIN_TIME_MS, MAX_TIME_MS, counts)
    starts = np.concatenate(([0], np.cumsum(counts)))
    timestamps = np.empty(int(starts[-1]), dtype=np.int64)
    value_bits = np.empty(int(starts[-1]), dtype=np.uint64)
    cursor = starts[:-1].copy()
    decode_samples(blocks, row_of_sno, MIN_TIME_MS, MAX_TIME_MS, cursor, timestamps, value_bits)
    for deletion in plan.deletions:
        erase_deleted(deletion, row_of_sno, starts, cursor, timestamps, value_bits)
    return finish_rows(starts, cursor, timestamps, value_bits)
