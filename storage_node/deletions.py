"""What tombstones have taken away, and where the disk still has it.

    tombstone ─► delete_samples ─► head: gone at once
                                └► Deletions: masks of the segments and runs of that moment ─► reads
                                       └─ saved by a checkpoint ─► `storage_node.purging` carries them out

A deletion holds for segments below a number only, so samples that are written afterwards, with the same times
perhaps, are not touched by it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import zstandard
from numpy.typing import NDArray

from common.errors import CorruptError
from common.kernels import deletion as kernels
from common.store import MAX_TIME_MS, MIN_TIME_MS
from common.tombstones import Tombstone
from storage_node import keys
from storage_node.disk import Batch, Disk
from storage_node.head import SampleBuffer
from storage_node.reading import PartitionRead, read_rows
from storage_node.windows import GENERATION_BITS, Deletion, Window, window_end, window_of, window_start

if TYPE_CHECKING:
    from storage_node.partition import PartitionState

READ_SERIES = 4096
"""Series whose samples of one window are held at a time."""
_HEAD = struct.Struct("<QqqI")


class Deletions:
    """The deletions of one partition that the disk has not carried out, by window.

    Whoever shares it between threads guards it, as the partition's state.
    """

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._of_window: dict[int, tuple[Deletion, ...]] = {}
        self._saved: dict[int, tuple[Deletion, ...]] = {}
        self._changed: set[int] = set()

    def __contains__(self, window: int) -> bool:
        return window in self._of_window

    def __len__(self) -> int:
        """Windows that have some."""
        return len(self._of_window)

    def of(self, window: int) -> tuple[Deletion, ...]:
        """Those of a window, in the order in which they came, so that `below` ascends."""
        return self._of_window.get(window, ())

    def of_all(self, windows: Iterable[int]) -> dict[int, tuple[Deletion, ...]]:
        """Those of some windows; none that has none."""
        if not self._of_window:
            return {}
        return {number: self._of_window[number] for number in windows if number in self._of_window}

    def saved(self) -> Iterator[tuple[int, tuple[Deletion, ...]]]:
        """What the last checkpoint has, so that a replay does not meet its tombstones again."""
        yield from self._saved.items()

    def add(self, window: int, deletion: Deletion) -> None:
        self._of_window[window] = (*self.of(window), deletion)
        self._changed.add(window)

    def drop_before(self, window: int) -> None:
        """Forget windows below this one; the checkpoint deletes them from the disk."""
        for known in (self._of_window, self._saved):
            for number in [number for number in known if number < window]:
                del known[number]
        self._changed = {number for number in self._changed if number >= window}

    # -- the disk -----------------------------------------------------------------------------------------------

    def write_changes(self, batch: Batch) -> None:
        for window in self._changed:
            batch.put(self._key(window), _encode(self._of_window[window]))

    def changes_written(self) -> None:
        self._saved.update((window, self._of_window[window]) for window in self._changed)
        self._changed.clear()

    def put_carried_out(self, batch: Batch, window: int, done: set[Deletion]) -> None:
        """Put into a batch that these deletions of a window are no longer needed; see `carried_out`."""
        left = tuple(one for one in self._saved[window] if one not in done)
        if left:
            batch.put(self._key(window), _encode(left))
        else:
            batch.delete(self._key(window))

    def carried_out(self, window: int, done: set[Deletion]) -> None:
        """The batch was written."""
        for known in (self._of_window, self._saved):
            left = tuple(one for one in known[window] if one not in done)
            if left:
                known[window] = left
            else:
                del known[window]

    def load(self, disk: Disk) -> None:
        """Read everything back. Raises CorruptError, DiskError."""
        for key, value in disk.scan(*keys.of_partition(keys.DELETIONS, self._partition)):
            self._saved[keys.parse_window(key)] = _decode(value, self._partition)
        self._of_window = dict(self._saved)

    def _key(self, window: int) -> bytes:
        return keys.window(keys.DELETIONS, self._partition, window)


def _encode(deletions: tuple[Deletion, ...]) -> bytes:
    """`docs/format/rocksdb-keys.md`, 'Deletions'."""
    parts = []
    for one in deletions:
        snos = np.diff(one.snos.astype("<u4"), prepend=np.uint32(0))
        parts += [_HEAD.pack(one.below, one.min_time, one.max_time, len(snos)), snos.tobytes()]
    return zstandard.ZstdCompressor(level=1).compress(b"".join(parts))


def _decode(data: bytes, partition: int) -> tuple[Deletion, ...]:
    try:
        plain = zstandard.ZstdDecompressor().decompress(data)
        found, at = [], 0
        while at < len(plain):
            below, min_time, max_time, n = _HEAD.unpack_from(plain, at)
            snos = np.frombuffer(plain, dtype="<u4", count=n, offset=at + _HEAD.size)
            found.append(Deletion(below, min_time, max_time, np.cumsum(snos, dtype=np.uint32)))
            at += _HEAD.size + 4 * n
    except (zstandard.ZstdError, struct.error, ValueError) as error:
        raise CorruptError(f"a window's deletions cannot be read: {error}", partition=partition) from None
    return tuple(found)


def delete_samples(state: PartitionState, tombstone: Tombstone) -> None:
    """Delete what a tombstone says.

    Raises:
        DiskError, ViewsDamaged: before anything has changed.
        CallerError: a regular expression is not valid RE2; nothing has changed.
    """
    state.resolve()
    snos = state.index.select(tombstone.matchers)
    if not len(snos):
        return
    low, high = max(tombstone.min_time_ms, state.horizon_ms), tombstone.max_time_ms
    # All that can fail comes before all that changes the state.
    gone = _count(state, snos, low, high) if low <= high else {}
    cut = _new_times(state, snos, tombstone.min_time_ms, tombstone.max_time_ms)
    state.series.cut(*cut)
    if low > high:
        return
    deletion = Deletion(state.next_segment << GENERATION_BITS, low, high, snos)
    for number in gone.keys() | state.attached.delete(snos, len(state.series), low, high):
        state.deletions.add(number, deletion)
    for number, window in _merged(gone, _delete_from_head(state, snos, low, high)).items():
        state.windows[number].subtract(window.lane_a, window.lane_b, window.n_samples)
        state.changed_windows.add(number)
        state.outcomes.deleted += window.n_samples


def _count(state: PartitionState, snos: NDArray[np.uint32], low: int, high: int) -> dict[int, Window]:
    """Digests and numbers of what segments have of some series in the closed range, by window; none of 0."""
    snos = snos[np.argsort(state.order_keys()[snos])]
    found: dict[int, Window] = {}
    for number in sorted(number for number in state.windows if window_of(low) <= number <= window_of(high)):
        segments = [(number, segment) for segment in state.windows[number].segments]
        for first in range(0, len(snos) if segments else 0, READ_SERIES):
            part = snos[first : first + READ_SERIES]
            plan = state.plan_segments(part, low, high, segments, with_head=False)
            samples = read_rows([PartitionRead(plan, state.segments)], len(part))
            found = _merged(found, _digests(state, part, samples))
    return found


def _digests(
    state: PartitionState,
    snos: NDArray[np.uint32],
    samples: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]],
) -> dict[int, Window]:
    ends, lanes, counts = state.digests(snos, *samples)
    rows = zip(ends.tolist(), lanes.tolist(), counts.tolist(), strict=True)
    return {window_of(end): Window(lane_a, lane_b, count) for end, (lane_a, lane_b), count in rows}


def _merged(one: dict[int, Window], other: dict[int, Window]) -> dict[int, Window]:
    for number, window in other.items():
        one.setdefault(number, Window()).add(window.lane_a, window.lane_b, window.n_samples)
    return one


def _delete_from_head(state: PartitionState, snos: NDArray[np.uint32], low: int, high: int) -> dict[int, Window]:
    """Take samples out of the head; returns their digests and numbers."""
    plan = state.plan_segments(snos, low, high, [], with_head=True)
    gone = _digests(state, snos, read_rows([PartitionRead(plan, state.segments)], len(snos)))
    if gone:
        is_doomed = np.zeros(len(state.series), dtype=np.bool_)
        is_doomed[snos] = True
        head = state.head.view()
        # Whoever reads a view of the old head is not disturbed.
        kept = SampleBuffer(len(head))
        kept.size = kernels.copy_kept(
            is_doomed, low, high, head.snos, head.timestamps, head.value_bits,
            kept.snos, kept.timestamps, kept.value_bits, kept.previous, state.series.tails.data,
        )  # fmt: skip
        state.head = kept
    return gone


def _new_times(
    state: PartitionState, snos: NDArray[np.uint32], low: int, high: int
) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.int64]]:
    """Series whose first or last sample goes, with the first and last times that they will have.

    They have to be those of samples that are there: what has one of these times counts as a duplicate at once.
    """
    earliest, latest = state.series.min_times.view()[snos], state.series.max_times.view()[snos]
    first_goes = (earliest >= low) & (earliest <= high)
    last_goes = (latest >= low) & (latest <= high)
    touched = (earliest <= latest) & (first_goes | last_goes)
    snos, first_goes, last_goes = snos[touched], first_goes[touched], last_goes[touched]
    min_times, max_times = earliest[touched].copy(), latest[touched].copy()
    has_left = np.zeros(len(snos), dtype=np.bool_)
    ends, begins = np.flatnonzero(last_goes & ~first_goes), np.flatnonzero(first_goes & ~last_goes)
    if len(ends):
        has_left[ends], max_times[ends] = _nearest(state, snos[ends], state.horizon_ms, low - 1, newest=True)
    if len(begins):
        rest = max(high + 1, state.horizon_ms), MAX_TIME_MS
        has_left[begins], min_times[begins] = _nearest(state, snos[begins], *rest, newest=False)
    min_times[~has_left], max_times[~has_left] = MAX_TIME_MS, MIN_TIME_MS
    return snos, min_times, max_times


def _nearest(
    state: PartitionState, snos: NDArray[np.uint32], low: int, high: int, *, newest: bool
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Whether each series has samples in the closed range, and the time of the last, or first, of them."""
    found = np.full(len(snos), MIN_TIME_MS if newest else MAX_TIME_MS)
    has_any = np.zeros(len(snos), dtype=np.bool_)
    better = np.maximum if newest else np.minimum
    steps: list[int | None] = [None]
    numbers = (number for number in state.windows if window_of(low) <= number <= window_of(high))
    steps += sorted(numbers, reverse=newest)
    for number in steps:
        left = np.arange(len(snos))
        segments = []
        if number is not None:
            # A series of which something nearer was found needs no look into this window.
            left = np.flatnonzero(found <= window_end(number) if newest else found >= window_start(number))
            segments = [(number, segment) for segment in state.windows[number].segments]
            if not segments:
                continue
        for first in range(0, len(left), READ_SERIES):
            part = left[first : first + READ_SERIES]
            plan = state.plan_segments(snos[part], low, high, segments, with_head=number is None)
            offsets, times, _ = read_rows([PartitionRead(plan, state.segments)], len(part))
            filled = np.flatnonzero(np.diff(offsets))
            places = offsets[filled + 1] - 1 if newest else offsets[filled]
            found[part[filled]] = better(found[part[filled]], times[places])
            has_any[part[filled]] = True
    return has_any, found
