"""Reading samples of one partition: a plan, made under the partition's lock, and its execution."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.attachments import Kind
from common.errors import CorruptError
from common.kernels.deletion import erase
from common.parallel import LEAST_WORK, n_cores, run_all
from storage_node.attachments import Rows, RowsPlan, positions_of
from storage_node.blocks import JoinedBlocks, count_samples, decode_samples, finish_rows, join_blocks
from storage_node.errors import ViewsDamaged
from storage_node.head import HeadReader, HeadView
from storage_node.segments import Segments
from storage_node.windows import Deletion, Segment

_NO_ROWS = np.zeros(0, dtype=np.int32)


class ReadPlan(NamedTuple):
    """All that a read needs of a partition's state; later changes of the state do not matter to it.

    snos: uint32 (n_rows,). order_keys: theirs, ascending. tails: uint32, last position of each in the head.
    n_series: series in the partition. segments: (window, segment) in the order of their windows and numbers.
    min_time, max_time: ms, closed, within the horizon. attached: of the bytes of histograms, and exemplars.
    deletions: by window, what is deleted and still in segments.
    """

    partition: int
    snos: NDArray[np.uint32]
    order_keys: NDArray[np.uint64]
    tails: NDArray[np.uint32]
    n_series: int
    head: HeadView
    segments: list[tuple[int, Segment]]
    min_time: int
    max_time: int
    attached: RowsPlan | None = None
    deletions: Mapping[int, tuple[Deletion, ...]] = MappingProxyType({})


class PartitionRead:
    """A plan with its blocks at hand: `count` tells the room, `collect` fills it. Rows start at `first_row`.

    Raises (also from the constructor):
        SegmentGone: a segment was merged or expired after the plan was made; make a new plan.
        ViewsDamaged, DiskError: the blocks cannot be read.
    """

    def __init__(self, plan: ReadPlan, segments: Segments, first_row: int = 0) -> None:
        self._plan = plan
        self._first_row = first_row
        everything = len(plan.snos) == plan.n_series
        self._blocks: list[tuple[JoinedBlocks, tuple[Deletion, ...]]] = []
        self.block_bytes = 0
        """As stored, of all blocks that may hold what is read."""
        for deletions, listed in _by_deletions(plan):
            order_keys = None if everything else plan.order_keys
            blocks = segments.read(plan.partition, listed, order_keys, plan.min_time, plan.max_time)
            if blocks:
                self.block_bytes += sum(map(len, blocks))
                self._blocks.append((join_blocks(blocks), deletions))
        self._head = HeadReader(plan.head, plan.tails, plan.n_series, plan.min_time, plan.max_time)
        self._attached = None
        if plan.attached is not None:
            self._attached = plan.attached.read(segments.disk, self._row_of_sno >= 0, Kind.HISTOGRAM)

    @cached_property
    def _row_of_sno(self) -> NDArray[np.int32]:
        """int32 (n_series,), -1 for series that are not read: for blocks, and for heads of which much is read."""
        rows = np.full(self._plan.n_series, -1, dtype=np.int32)
        first = self._first_row
        rows[self._plan.snos] = np.arange(first, first + len(self._plan.snos), dtype=np.int32)
        return rows

    def histograms(
        self, offsets: NDArray[np.int64], timestamps: NDArray[np.int64], value_bits: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int64], Rows] | None:
        """Which of the samples, once they are all there, are histograms; see `positions_of`."""
        if self._attached is None:
            return None
        return positions_of(self._attached, self._row_of_sno, offsets, timestamps, value_bits)

    def count(self, counts: NDArray[np.int64]) -> None:
        """Add an upper bound of each row's samples to counts[first_row:]."""
        plan = self._plan
        for blocks, _ in self._blocks:
            with _damage(plan.partition):
                count_samples(blocks, self._row_of_sno, plan.min_time, plan.max_time, counts)
        rows = slice(self._first_row, self._first_row + len(plan.snos))
        counts[rows] += self._head.count(self._rows_for_head(), self._first_row)

    def collect(
        self, cursor: NDArray[np.int64], timestamps: NDArray[np.int64], value_bits: NDArray[np.uint64]
    ) -> None:
        """Write the samples of each row at its cursor, which moves on; to be called once, after `count`."""
        plan = self._plan
        for blocks, deletions in self._blocks:
            before = cursor.copy() if deletions else cursor
            with _damage(plan.partition):
                decode_samples(
                    blocks, self._row_of_sno, plan.min_time, plan.max_time, cursor, timestamps, value_bits
                )
            for deletion in deletions:
                erase_deleted(deletion, self._row_of_sno, before, cursor, timestamps, value_bits)
        self._head.collect(self._rows_for_head(), self._first_row, cursor, timestamps, value_bits)

    def _rows_for_head(self) -> NDArray[np.int32]:
        return self._row_of_sno if self._head.scans else _NO_ROWS


def _by_deletions(plan: ReadPlan) -> Iterator[tuple[tuple[Deletion, ...], list[tuple[int, Segment]]]]:
    """The segments of a plan by what is deleted in them."""
    if not plan.deletions:
        yield (), plan.segments
        return
    groups: dict[tuple[Deletion, ...], list[tuple[int, Segment]]] = {}
    for number, segment in plan.segments:
        deletions = tuple(one for one in plan.deletions.get(number, ()) if segment.number < one.below)
        groups.setdefault(deletions, []).append((number, segment))
    yield from groups.items()


def erase_deleted(
    deletion: Deletion,
    row_of_sno: NDArray[np.int32],
    starts: NDArray[np.int64],
    cursor: NDArray[np.int64],
    timestamps: NDArray[np.int64],
    value_bits: NDArray[np.uint64],
) -> None:
    """Take what is deleted out of rows that were filled between `starts` and `cursor`, which moves back."""
    snos = deletion.snos[: np.searchsorted(deletion.snos, len(row_of_sno))]
    rows = row_of_sno[snos]
    rows = rows[rows >= 0].astype(np.int64)
    erase(rows, starts[rows], cursor, timestamps, value_bits, deletion.min_time, deletion.max_time)


@contextmanager
def _damage(partition: int) -> Iterator[None]:
    """Tell a corrupt block on the disk from a corrupt record."""
    try:
        yield
    except CorruptError as error:
        raise ViewsDamaged(
            f"the views of partition {partition} are damaged ({error}); stop the node and run `tabor replay`"
        ) from error


def read_rows(
    reads: list[PartitionRead], n_rows: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
    """Samples of all rows of some reads: (offsets int64 (n_rows + 1,), timestamps int64, value bits uint64)."""
    counts = np.zeros(n_rows, dtype=np.int64)
    for read in reads:
        read.count(counts)
    return fill_rows(reads, counts)


def fill_rows(
    reads: list[PartitionRead], counts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
    """Like `read_rows`, with the counts at hand."""
    starts = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=starts[1:])
    timestamps = np.empty(int(starts[-1]), dtype=np.int64)
    value_bits = np.empty(int(starts[-1]), dtype=np.uint64)
    cursor = starts[:-1].copy()
    n_jobs = max(1, min(n_cores(), len(reads), len(timestamps) // LEAST_WORK + 1))

    def job(first: int) -> None:
        # Each read has rows of its own.
        for read in reads[first::n_jobs]:
            read.collect(cursor, timestamps, value_bits)

    run_all([partial(job, first) for first in range(n_jobs)])
    return finish_rows(starts, cursor, timestamps, value_bits)
