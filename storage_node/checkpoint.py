"""Checkpoints: a partition's state on the disk, and back (`docs/format/rocksdb-keys.md`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, fields

import numpy as np
from numpy.typing import NDArray

from common.errors import CorruptError
from common.kernels.head import take_until
from common.store import MAX_TIME_MS, MIN_TIME_MS
from storage_node import keys
from storage_node.blocks import encode_blocks
from storage_node.disk import Batch, FrozenDisk, end_of
from storage_node.head import SampleBuffer
from storage_node.marks import digest_of
from storage_node.partition import Outcomes, PartitionState
from storage_node.postings import KEY_PREFIX as POSTINGS
from storage_node.producers import NONE
from storage_node.reading import PartitionRead, read_rows
from storage_node.windows import (
    GENERATION_BITS,
    Segment,
    Window,
    decode_segments,
    encode_segments,
    window_end,
    window_of,
)


def checkpoint(state: PartitionState) -> int:
    """Write all that has changed in one atomic batch; return its size in bytes.

    Raises:
        DiskError: the state in memory is as before, and the next checkpoint tries all of it again.
    """
    state.resolve()
    batch = Batch()
    if state.dropped_before is not None:
        _delete_windows(batch, state.partition, state.dropped_before)
    touched = np.flatnonzero(state.series.tails.view() != NONE).astype(np.uint32)
    sealed = _seal(state, touched, batch)
    runs = state.attached.seal(batch, state.next_segment << GENERATION_BITS)
    state.metadata.write_changes(batch)
    state.deletions.write_changes(batch)
    for number in state.changed_windows:
        batch.put(keys.window(keys.WINDOW, state.partition, number), state.windows[number].encode())
    for number, segment in sealed.items():
        segments = [*state.windows[number].segments, segment]
        batch.put(keys.window(keys.SEGMENT_LIST, state.partition, number), encode_segments(segments))
    prefix = keys.index(state.partition)
    if state.index.is_rewritten:
        batch.delete_range(prefix + POSTINGS, end_of(prefix + POSTINGS))
    state.index.write_changes(lambda key, value: batch.put(prefix + key, value))
    state.series.write_changes(batch, touched)
    state.producers.write_changes(batch)
    next_segment = state.next_segment + max(len(sealed), min(len(runs), 1))
    batch.put(keys.partition_meta(state.partition), _encode_meta(state, next_segment))
    state.disk.write(batch)

    state.index.changes_written()
    state.series.changes_written()
    state.producers.changes_written()
    state.attached.sealed(runs)
    state.metadata.changes_written()
    state.deletions.changes_written()
    for number, segment in sealed.items():
        state.windows[number].segments.append(segment)
    state.next_segment = next_segment
    state.changed_windows.clear()
    state.dropped_before = None
    state.series.tails.data[touched] = NONE
    # The next head will probably be as large; what is not used of it takes no memory.
    state.head = SampleBuffer(state.head.size)
    state.saved_offset = state.next_offset
    state.is_urgent = False
    return batch.size_bytes


def _delete_windows(batch: Batch, partition: int, before: int) -> None:
    first = window_of(MIN_TIME_MS)
    kinds = (keys.WINDOW, keys.SEGMENT_LIST, keys.SEGMENT_DIRECTORY, keys.SEGMENT_BLOCK)
    for kind in (*kinds, keys.ATTACHED_DIRECTORY, keys.ATTACHED_BLOCK, keys.DELETIONS):
        batch.delete_range(keys.window(kind, partition, first), keys.window(kind, partition, before))


def _seal(state: PartitionState, touched: NDArray[np.uint32], batch: Batch) -> dict[int, Segment]:
    """Put the head into the batch as segments; return that of each window."""
    snos = touched[np.argsort(state.order_keys()[touched])]
    plan = state.plan_segments(snos, state.horizon_ms, MAX_TIME_MS, [], with_head=True)
    offsets, times, bits = read_rows([PartitionRead(plan, state.segments)], len(snos))
    sealed: dict[int, Segment] = {}
    for number, starts, window_times, window_bits in _by_window(offsets, times, bits):
        rows = np.flatnonzero(np.diff(starts))
        row_starts = np.append(starts[rows], starts[-1])
        encoded = encode_blocks(snos[rows], row_starts, window_times, window_bits)
        name = state.next_segment + len(sealed) << GENERATION_BITS
        order_keys = state.order_keys()[snos[rows]]
        n_samples = len(window_times)
        sealed[number] = state.segments.put(batch, state.partition, number, name, order_keys, [encoded], n_samples)
    return sealed


def _by_window(
    offsets: NDArray[np.int64], times: NDArray[np.int64], bits: NDArray[np.uint64]
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]]:
    """Split rows of samples by window: (window, offsets, times, bits) with as many rows, some of them empty."""
    if not len(times):
        return
    number = window_of(int(times.min()))
    if int(times.max()) <= window_end(number):
        yield number, offsets, times, bits
        return
    cursor = offsets[:-1].copy()
    n_left = len(times)
    while n_left:
        number = window_of(int(times[cursor[cursor < offsets[1:]]].min()))
        starts = np.empty(len(offsets), dtype=np.int64)
        times_out, bits_out = np.empty(n_left, dtype=np.int64), np.empty(n_left, dtype=np.uint64)
        n = take_until(offsets, times, bits, cursor, window_end(number), starts, times_out, bits_out)
        yield number, starts, times_out[:n], bits_out[:n]
        n_left -= n


def _encode_meta(state: PartitionState, next_segment: int) -> bytes:
    return json.dumps(
        {
            "next_offset": state.next_offset,
            "clock_ms": state.clock_ms,
            "horizon_ms": state.horizon_ms,
            "next_segment": next_segment,
            "n_series": len(state.series),
            "outcomes": asdict(state.outcomes),
            "producers": state.producers.summary(),
        }
    ).encode()


def load(state: PartitionState) -> None:
    """Fill a new state from the last checkpoint that the disk has.

    Raises:
        CorruptError: what is stored does not fit together.
        DiskError: it cannot be read.
    """
    partition = state.partition
    state.index.load()
    state.series.load(state.disk, state.index.ids(np.arange(len(state.index), dtype=np.uint32)))
    meta = json.loads(state.disk.get(keys.partition_meta(partition)) or b"{}")
    if meta.get("n_series", 0) != len(state.series):
        raise CorruptError("the index does not have the series of the last checkpoint", partition=partition)
    if not meta:
        return
    state.next_offset = state.saved_offset = meta["next_offset"]
    state.clock_ms = meta["clock_ms"]
    state.horizon_ms = meta["horizon_ms"]
    state.next_segment = meta["next_segment"]
    names = {field.name for field in fields(Outcomes)}
    state.outcomes = Outcomes(**{name: n for name, n in meta["outcomes"].items() if name in names})
    state.producers.load(state.disk, meta["producers"])
    state.attached.load()
    state.metadata.load(state.disk)
    state.deletions.load(state.disk)
    for key, value in state.disk.scan(*keys.of_partition(keys.WINDOW, partition)):
        state.windows[keys.parse_window(key)] = Window.decode(value, partition)
    for key, value in state.disk.scan(*keys.of_partition(keys.SEGMENT_LIST, partition)):
        state.windows[keys.parse_window(key)].segments = decode_segments(value, partition)


def saved_offset_of(disk: FrozenDisk, partition: int) -> int:
    """Next offset of a partition's last checkpoint, 0 if there is none. Raises DiskError."""
    return int(json.loads(disk.get(keys.partition_meta(partition)) or b"{}").get("next_offset", 0))


def saved_digest_of(disk: FrozenDisk, partition: int) -> str:
    """Digest of a partition's samples as of its last checkpoint. Raises CorruptError, DiskError."""
    records = disk.scan(*keys.of_partition(keys.WINDOW, partition))
    return digest_of({keys.parse_window(key): Window.decode(value, partition) for key, value in records})


def commit_merge(
    state: PartitionState, number: int, old: list[Segment], merged: Segment | None, batch: Batch
) -> bool:
    """Replace segments of a window by one with the same samples, whose blocks are in the batch.

    Returns False, and changes nothing, if the window has expired or an old segment is gone. The batch says nothing
    of the digest or the offset: those of the last checkpoint hold. Raises DiskError.
    """
    window = state.windows.get(number)
    if window is None or not set(old) <= set(window.segments):
        return False
    segments = put_replaced(state, number, old, merged, batch)
    state.disk.write(batch)
    window.segments = segments
    return True


def put_replaced(
    state: PartitionState, number: int, old: list[Segment], merged: Segment | None, batch: Batch
) -> list[Segment]:
    """Put into a batch that a window's segments are replaced by one, or by nothing; returns those it has then."""
    kept = [segment for segment in state.windows[number].segments if segment not in old]
    segments = kept if merged is None else [merged, *kept]
    for segment in old:
        state.segments.delete(batch, state.partition, number, segment)
    batch.put(keys.window(keys.SEGMENT_LIST, state.partition, number), encode_segments(segments))
    return segments
