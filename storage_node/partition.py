"""The state machine of one partition: records in, series and samples out. No clock, randomness, log or threads.

    apply(offset, batch) ── in order ─────────────► head ── checkpoint() ──► segments, one a window
                         └─ late ──► late buffer ─► (resolve: is it stored already?)

Its state is a function of the records applied and of the retention; when it was checkpointed, resolved, merged or
reopened changes nothing that can be observed. The disk, behind `storage_node.disk.Disk`, is used by the caller's
thread. Whoever shares a state between threads guards it with a lock.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

from common.attachments import NO_REF, Attachments, Kind
from common.errors import CallerError, CorruptError
from common.histograms import EncodedHistograms, decode
from common.kernels import head as kernels
from common.kernels.digest import digest_rows
from common.labels import METRIC_NAME, StringPool
from common.record import RecordBatch
from common.store import HOUR_MS, MAX_TIME_MS, MIN_TIME_MS, Extent, MatchOp
from common.tenants import TENANT_LABEL, tenant_named
from common.tombstones import Tombstone
from storage_node import keys
from storage_node.attachments import AttachedRows, Rows
from storage_node.deletions import Deletions, delete_samples
from storage_node.disk import Disk, Subtree
from storage_node.head import SampleBuffer
from storage_node.index import SeriesIndex
from storage_node.late import new_among
from storage_node.marks import Marks, digest_of
from storage_node.metadata import MetadataTable
from storage_node.orphans import adopt_declared, label_sets
from storage_node.producers import MAX_REFS, NONE, Producer, Producers
from storage_node.reading import ReadPlan
from storage_node.segments import Segments
from storage_node.series_state import NONE as NO_TAIL
from storage_node.series_state import SeriesState
from storage_node.windows import Segment, Window, window_end, window_of, window_start, windows_of

MAX_LATE_SAMPLES = 1 << 16
"""Late samples that wait until they are looked for among what is stored."""
_SAMPLE_BYTES = 24
"""Of memory, that a sample of the head takes."""
_SOME_WINDOW = np.array([window_start(0)]), np.array([window_end(0)])


@dataclass(slots=True)
class Outcomes:
    """What became of the samples and records of a partition, since the start of its log.

    Each sample of a record is one of the first four. orphaned: of these, samples whose series was not declared.
    moved_twice: samples of orphans that turned out to be stored under the declared series already.
    expired: samples that were stored and have been dropped by retention.
    deleted: samples that were stored and have been deleted by tombstones.
    histograms, exemplars, tombstones: rows of records, whatever became of them.
    """

    accepted: int = 0
    duplicate: int = 0
    late: int = 0
    too_old: int = 0
    orphaned: int = 0
    moved_twice: int = 0
    expired: int = 0
    quarantined_records: int = 0
    deleted: int = 0
    histograms: int = 0
    exemplars: int = 0
    tombstones: int = 0


class PartitionState:
    """State of one partition. `load` it before anything else.

    retention_ms: age, by the log's own clock, from which windows are dropped; None keeps everything.
    """

    def __init__(
        self,
        partition: int,
        pool: StringPool,
        disk: Disk,
        segments: Segments,
        *,
        retention_ms: int | None = None,
        late_limit: int = MAX_LATE_SAMPLES,
    ) -> None:
        self.partition = partition
        self.index = SeriesIndex(partition, pool, Subtree(disk, keys.index(partition)))
        self.series = SeriesState(partition)
        self.producers = Producers(partition)
        self.windows: dict[int, Window] = {}
        self.outcomes = Outcomes()
        self.next_offset = 0
        self.saved_offset = 0
        """next_offset of the last checkpoint."""
        self.is_urgent = False
        """Whether the next checkpoint should come soon, however little there is to write."""
        self.clock_ms = MIN_TIME_MS
        """The log's clock: the highest created_ms so far."""
        self.horizon_ms = MIN_TIME_MS
        """First timestamp that is kept; the start of a window."""
        self.head = SampleBuffer()
        self.late = SampleBuffer()
        """Samples that are neither the first nor the last of their series; see `resolve`."""
        self.deletions = Deletions(partition)
        self.attached = AttachedRows(partition, disk, self.deletions)
        """Bytes of histograms, and exemplars."""
        self.metadata = MetadataTable(partition)
        self.marks = Marks()
        """Digests at offsets at which replicas are compared; not kept on the disk."""
        # What the next checkpoint has to write, besides the head.
        self.changed_windows: set[int] = set()
        self.dropped_before: int | None = None
        self.next_segment = 0
        self.disk = disk
        self.segments = segments
        self._retention_ms = retention_ms
        self._late_limit = late_limit
        # The window of the last record, in which the next one probably lies too.
        self._usual_window = _SOME_WINDOW
        self._counters = np.zeros(kernels.N_OUTCOMES, dtype=np.int64)

    # -- records ------------------------------------------------------------------------------------------------

    def apply(self, offset: int, batch: RecordBatch) -> None:
        """Apply the record at an offset.

        Raises:
            CorruptError: a ref or a declaration cannot be taken; the caller goes on with `skip`.
            DiskError: the caller looks at `next_offset`: the record is applied, or can be applied again.
        """
        assert offset >= self.next_offset, "a record was applied before"
        # Before anything is changed: a record that is refused leaves nothing behind, not even its ingestor.
        for refs in (batch.declared_refs, batch.refs):
            if len(refs):
                self._check_refs(refs)
        if len(batch.attached):
            self._check_attached(batch)
        self._advance_clock(batch.created_ms)
        producer = self.producers.heard_of(batch.producer_id, self.clock_ms)
        if len(batch.declared_refs):
            self._declare(producer, batch)
        if len(batch.refs):
            self._append(producer, batch.refs, batch.timestamps, batch.values.view(np.uint64))
        if len(batch.attached):
            self._attach(producer, batch.attached)
        self.next_offset = offset + 1
        if self.late.size >= self._late_limit or batch.says_nothing():
            self.resolve()
        if batch.says_nothing():
            self.marks.add(offset, self.windows)

    def calm_until_ms(self, created_ms: int) -> int:
        """Up to which created_ms records that follow one of `created_ms` do nothing but add samples and series.

        Until then the horizon stays, and no ingestor is forgotten, so that such records of one ingestor may be
        applied as if they were one, provided that only the first declares series.
        """
        now_ms = max(self.clock_ms, created_ms)
        until_ms = self.producers.calm_until_ms(now_ms)
        if self._retention_ms is not None:
            number = window_of(max(now_ms - self._retention_ms, MIN_TIME_MS))
            until_ms = min(until_ms, window_start(number + 1) + self._retention_ms - 1)
        return until_ms

    def skip(self, offset: int) -> None:
        """Go past a record that cannot be read."""
        assert offset >= self.next_offset
        self.outcomes.quarantined_records += 1
        self.next_offset = offset + 1

    def start_at(self, offset: int) -> None:
        """Go past records that the log has already deleted."""
        assert offset >= self.next_offset
        self.next_offset = offset

    def _check_refs(self, refs: NDArray[np.uint32]) -> None:
        highest = int(refs.max())
        if highest >= MAX_REFS:
            message = f"ref {highest} is above the limit of {MAX_REFS}"
            raise CorruptError(message, partition=self.partition, offset=self.next_offset)

    def _check_attached(self, batch: RecordBatch) -> None:
        """Before anything is applied; what is not a histogram now would be an error of every query later."""
        attached = batch.attached
        tombstones = np.count_nonzero(attached.kinds == Kind.TOMBSTONE)
        if tombstones and (tombstones < len(attached) or len(batch.refs) or len(batch.declared_refs)):
            # Else what comes before it would be applied twice, should the disk fail while it is.
            message = "a tombstone is in one record with other things"
            raise CorruptError(message, partition=self.partition, offset=self.next_offset)
        self._tombstones(attached)
        refs = attached.refs[attached.refs != NO_REF]
        if len(refs):
            self._check_refs(refs)
        histograms = np.flatnonzero(attached.kinds == Kind.HISTOGRAM)
        if len(histograms):
            rows = attached.take(histograms)
            try:
                decode(EncodedHistograms(histograms, rows.offsets, rows.data))
            except CorruptError as error:
                raise CorruptError(str(error), partition=self.partition, offset=self.next_offset) from None

    def _advance_clock(self, created_ms: int) -> None:
        if created_ms <= self.clock_ms:
            return
        if self._retention_ms is not None:
            horizon = window_start(window_of(max(created_ms - self._retention_ms, MIN_TIME_MS)))
            if horizon > self.horizon_ms:
                self._drop_before(horizon)
        # Last: if the disk fails above, the record is applied again.
        self.clock_ms = created_ms

    def _drop_before(self, horizon_ms: int) -> None:
        first = window_of(horizon_ms)
        # What waits may belong to a window that goes, and be all that this window has; its outcome is that of now.
        self.resolve()
        for number in [number for number in self.windows if number < first]:
            self.outcomes.expired += self.windows.pop(number).n_samples
            self.changed_windows.discard(number)
            self.dropped_before = first
        self.deletions.drop_before(first)
        if self.attached.drop_before(first):
            self.dropped_before = first
        self.horizon_ms = horizon_ms

    def _declare(self, producer: Producer, batch: RecordBatch) -> None:
        self._check_refs(batch.declared_refs)
        # Should a record declare a ref more than once, the last declaration counts.
        _, from_end = np.unique(batch.declared_refs[::-1], return_index=True)
        rows = np.sort(len(batch.declared_refs) - 1 - from_end)
        bound = producer.lookup(batch.declared_refs[rows])
        known = bound != NONE
        ids = np.ascontiguousarray(batch.declared_ids[rows]).view("<u8")
        known[known] = (self.series.ids.view()[bound[known]] == ids[known]).all(axis=1)
        rows = rows[~known]
        if not len(rows):
            return
        if self.series.orphans:
            rows = adopt_declared(self, producer, batch, rows)
        snos = self._register(batch, rows)
        producer.bind(batch.declared_refs[rows], snos)

    def _register(self, batch: RecordBatch, rows: NDArray[np.int64]) -> NDArray[np.uint32]:
        """Numbers of declared series, of which some may be new."""
        if not len(rows):
            return np.zeros(0, dtype=np.uint32)
        if len(rows) == len(batch.declared_refs):
            ids, offsets, data = batch.declared_ids, batch.label_offsets, batch.label_bytes
        else:
            ids = batch.declared_ids[rows]
            offsets, data = label_sets(batch, rows)
        first = len(self.index)
        snos = self.index.register(ids, offsets, data)
        if len(self.index) > first:
            self.series.add(self.index.ids(np.arange(first, len(self.index), dtype=np.uint32)))
        return snos

    # -- samples ------------------------------------------------------------------------------------------------

    def _append(
        self,
        producer: Producer,
        refs: NDArray[np.uint32],
        timestamps: NDArray[np.int64],
        value_bits: NDArray[np.uint64],
    ) -> None:
        windows = self._usual_window
        while True:
            n_head = self._run(refs, timestamps, value_bits, producer.snos.view(), windows, settled=False)
            if n_head == kernels.UNKNOWN_REF:
                self._add_orphans(producer, refs)
            elif n_head == kernels.OTHER_WINDOW:
                windows = windows_of(timestamps)
                if len(windows[0]) == 1:
                    self._usual_window = windows
            else:
                break
        accepted, duplicate, late, too_old, waiting = self._counters.tolist()
        self.outcomes.accepted += accepted
        self.outcomes.duplicate += duplicate
        self.outcomes.late += late
        self.outcomes.too_old += too_old
        self.late.size += waiting
        if self.series.orphans:
            snos = producer.snos.view()[refs]
            self.outcomes.orphaned += int(self.series.is_orphan.view()[snos].sum())

    def _attach(self, producer: Producer, attached: Attachments) -> None:
        """Histograms are samples with their fingerprints for values; their bytes, and exemplars, lie beside."""
        of_series = np.flatnonzero(attached.refs != NO_REF)
        if len(of_series):
            mine = attached if len(of_series) == len(attached) else attached.take(of_series)
            refs = mine.refs
            if (producer.lookup(refs) == NONE).any():
                self._add_orphans(producer, refs)
            rows = Rows.of(mine, producer.lookup(refs))
            histograms = rows.kinds == Kind.HISTOGRAM
            n_histograms = int(np.count_nonzero(histograms))
            # Before the samples: should the disk fail, the same rows may come again.
            self.attached.add(rows, self.horizon_ms)
            if n_histograms:
                columns = refs[histograms], rows.times[histograms], rows.fingerprints[histograms]
                self._append(producer, *columns)
            self.outcomes.histograms += n_histograms
            self.outcomes.exemplars += len(rows) - n_histograms
        if len(of_series) < len(attached):
            for i in np.flatnonzero(attached.kinds == Kind.METADATA).tolist():
                self.metadata.add(attached.row(i))
            self._delete(attached)

    def _delete(self, attached: Attachments) -> None:
        """Apply tombstones; to apply one again changes nothing."""
        tombstones = self._tombstones(attached)
        for tombstone in tombstones:
            snos = self.index.select(tombstone.matchers) if tombstone.forgets else None
            delete_samples(self, tombstone)
            if snos is not None:
                self._forget(snos, tombstone)
        self.outcomes.tombstones += len(tombstones)

    def _forget(self, snos: NDArray[np.uint32], tombstone: Tombstone) -> None:
        """Forget series of which all samples are deleted, and the metadata of their tenants."""
        if len(snos):
            is_gone = np.zeros(len(self.index), dtype=np.bool_)
            is_gone[snos] = True
            self.index.forget(snos)
            self.series.ids.data[snos] = 0
            self.producers.unbind(is_gone)
        of_tenant = [m for m in tombstone.matchers if m.name == TENANT_LABEL and m.op is MatchOp.EQUAL]
        if of_tenant:
            self.metadata.forget(tenant_named(of_tenant[0].value))
        # Until the next checkpoint the disk has it all, and looking things up takes longer.
        self.is_urgent = True

    def _tombstones(self, attached: Attachments) -> list[Tombstone]:
        """Those among the rows, whose matchers can be used. Raises CorruptError."""
        rows = np.flatnonzero(attached.kinds == Kind.TOMBSTONE).tolist()
        try:
            found = [Tombstone.decode(attached.row(i)) for i in rows]
            for tombstone in found:
                self.index.select(tombstone.matchers)
        except (ValueError, CallerError) as error:
            raise CorruptError(str(error), partition=self.partition, offset=self.next_offset) from None
        return found

    def _run(
        self,
        refs: NDArray[np.uint32],
        timestamps: NDArray[np.int64],
        value_bits: NDArray[np.uint64],
        sno_of_ref: NDArray[np.uint32],
        windows: tuple[NDArray[np.int64], NDArray[np.int64]],
        *,
        settled: bool,
    ) -> int:
        """Sort samples into the head with the kernel, whose result is returned; see there."""
        head, late, series = self.head, self.late, self.series
        head.reserve(len(refs))
        late.reserve(0 if settled else len(refs))
        starts, ends = windows
        lanes = np.zeros((len(ends), 2), dtype=np.uint64)
        counts = np.zeros(len(ends), dtype=np.int64)
        self._counters[:] = 0
        n_head: int = kernels.apply_samples(
            refs, timestamps, value_bits, sno_of_ref, self.horizon_ms, settled, starts, ends, lanes, counts,
            series.min_times.data, series.max_times.data, series.tails.data, series.ids.data,
            head.snos, head.timestamps, head.value_bits, head.previous, head.size,
            late.snos, late.timestamps, late.value_bits, late.size, self._counters,
        )  # fmt: skip
        if n_head >= 0:
            head.size = n_head
            self.count_in(ends, lanes, counts)
        return n_head

    def count_in(
        self,
        window_ends: NDArray[np.int64],
        lanes: NDArray[np.uint64],
        counts: NDArray[np.int64],
        *,
        sign: int = 1,
    ) -> None:
        """Add digests and numbers of samples to windows, or subtract them (sign -1)."""
        for end, (lane_a, lane_b), count in zip(
            window_ends.tolist(), lanes.tolist(), counts.tolist(), strict=True
        ):
            if count:
                number = window_of(end)
                window = self.windows.get(number)
                if window is None:
                    window = self.windows[number] = Window()
                window.add(sign * lane_a, sign * lane_b, sign * count)
                self.changed_windows.add(number)

    def digests(
        self,
        snos: NDArray[np.uint32],
        offsets: NDArray[np.int64],
        timestamps: NDArray[np.int64],
        value_bits: NDArray[np.uint64],
    ) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.int64]]:
        """Of samples of some series by window, as `count_in` takes them: last ms, digest lanes, number."""
        _, ends = windows_of(timestamps)
        lanes = np.zeros((len(ends), 2), dtype=np.uint64)
        counts = np.zeros(len(ends), dtype=np.int64)
        digest_rows(self.series.ids.data[snos], offsets, timestamps, value_bits, ends, lanes, counts)
        return ends, lanes, counts

    def _add_orphans(self, producer: Producer, refs: NDArray[np.uint32]) -> None:
        self._check_refs(refs)
        refs = np.unique(refs)
        unknown = refs[producer.lookup(refs) == NONE]
        snos = []
        for ref in unknown.tolist():
            sno = self.series.orphans.get((producer.id, ref))
            if sno is None:
                sno = self.index.add_orphan()
                assert sno == self.series.add_orphan(producer.id, ref)
            snos.append(sno)
        producer.bind(unknown, np.array(snos, dtype=np.uint32))

    # -- late samples -------------------------------------------------------------------------------------------

    def resolve(self) -> None:
        """Decide which of the waiting late samples are new; the first in the log wins. Raises DiskError."""
        if not self.late.size:
            return
        late = self.late.view()
        is_new = new_among(self, late.snos, late.timestamps)
        n_new = int(is_new.sum())
        self.append_settled(late.snos[is_new], late.timestamps[is_new], late.value_bits[is_new])
        self.outcomes.late += n_new
        self.outcomes.duplicate += len(late) - n_new
        self.late = SampleBuffer()

    def append_settled(
        self, snos: NDArray[np.uint32], timestamps: NDArray[np.int64], value_bits: NDArray[np.uint64]
    ) -> None:
        """Put samples that are known to be new into the head, without counting their outcomes."""
        if len(snos):
            self._run(snos, timestamps, value_bits, snos, windows_of(timestamps), settled=True)

    # -- reading ------------------------------------------------------------------------------------------------

    def plan(self, snos: NDArray[np.uint32], min_time: int, max_time: int) -> ReadPlan:
        """Plan a read of these series in the closed range [min_time, max_time], ms. Raises DiskError."""
        self.resolve()
        min_time = max(min_time, self.horizon_ms)
        segments: list[tuple[int, Segment]] = []
        if min_time <= max_time:
            first, last = window_of(min_time), window_of(max_time)
            numbers = sorted(number for number in self.windows if first <= number <= last)
            segments = [(number, segment) for number in numbers for segment in self.windows[number].segments]
        plan = self.plan_segments(snos, min_time, max_time, segments, with_head=True)
        attached = self.attached.plan(min_time, max_time, snos)
        return plan if attached is None else plan._replace(attached=attached)

    def plan_segments(
        self,
        snos: NDArray[np.uint32],
        min_time: int,
        max_time: int,
        segments: list[tuple[int, Segment]],
        *,
        with_head: bool,
    ) -> ReadPlan:
        """Plan a read of exactly these segments, and of the head if wanted."""
        order_keys = np.sort(self.order_keys()[snos]) if segments else np.zeros(0, dtype=np.uint64)
        deletions = self.deletions.of_all(number for number, _ in segments)
        head = self.head if with_head else SampleBuffer(0)
        tails = self.series.tails.view()[snos]
        n_series = len(self.series)
        return ReadPlan(
            self.partition, snos, order_keys, tails, n_series, head.view(), segments, min_time, max_time,
            deletions=deletions,
        )  # fmt: skip

    def order_keys(self) -> NDArray[np.uint64]:
        """Order keys of all series, uint64 (n_series,)."""
        first = self.series.order_keys.size
        if first < len(self.series):
            table = self.index.table(np.arange(first, len(self.series), dtype=np.uint32))
            codes, inverse = np.unique(table.column(METRIC_NAME), return_inverse=True)
            hashes = [xxhash.xxh3_64_intdigest(table.pool[code].encode()) >> 32 for code in codes.tolist()]
            self.series.add_order_keys(np.array(hashes, dtype=np.uint32)[inverse])
        return self.series.order_keys.view()

    def present(self, snos: NDArray[np.uint32], min_time: int, max_time: int) -> NDArray[np.uint32]:
        """Those of the series whose span of time touches the closed range [min_time, max_time], ms."""
        self.resolve()
        if self.horizon_ms > max_time:
            return snos[:0]
        earliest, latest = self.series.min_times.data[snos], self.series.max_times.data[snos]
        touches = (earliest <= max_time) & (latest >= max(min_time, self.horizon_ms))
        # Without the last condition a series that has no sample would touch all of time.
        present: NDArray[np.uint32] = snos[touches & (earliest <= latest)]
        return present

    def extent(self, snos: NDArray[np.uint32] | None = None) -> Extent:
        """Chunks of segments and of the head, and the first and last time; of some series the times alone.

        Raises DiskError.
        """
        self.resolve()
        of = slice(None) if snos is None else snos
        earliest = np.maximum(self.series.min_times.view()[of], self.horizon_ms)
        latest = self.series.max_times.view()[of]
        has_samples = earliest <= latest
        n_chunks = (
            0
            if snos is not None
            else sum(segment.n_rows for window in self.windows.values() for segment in window.segments)
        )
        if snos is None:
            n_chunks += int(np.count_nonzero(self.series.tails.view() != NO_TAIL))
        first = int(earliest[has_samples].min(initial=MAX_TIME_MS))
        return Extent(n_chunks, first, int(latest[has_samples].max(initial=MIN_TIME_MS)))

    def births(self, snos: NDArray[np.uint32], min_time: int, max_time: int) -> dict[int, int]:
        """How many of the series have their first sample in each hour, within the closed range, ms."""
        self.resolve()
        first, latest = self.series.min_times.view()[snos], self.series.max_times.view()[snos]
        is_wanted = (first >= min_time) & (first <= max_time) & (first <= latest)
        hours, counts = np.unique(first[is_wanted] // HOUR_MS, return_counts=True)
        return dict(zip(hours.tolist(), counts.tolist(), strict=True))

    @property
    def n_head(self) -> int:
        """Samples that are in no segment yet, with those that wait; attachments by their size in memory."""
        return self.head.size + self.late.size + self.attached.head_bytes // _SAMPLE_BYTES

    @property
    def n_pending(self) -> int:
        """Windows that have what is deleted still, and the index if what is forgotten is on the disk."""
        return len(self.deletions) + int(self.index.is_rewritten)

    @property
    def n_samples(self) -> int:
        """Distinct samples stored."""
        self.resolve()
        return sum(window.n_samples for window in self.windows.values())

    @property
    def size_bytes(self) -> int:
        """Bytes of all segments' blocks."""
        return sum(s.size_bytes for window in self.windows.values() for s in window.segments)

    def digest(self) -> str:
        """Digest of all samples, 32 hex digits; equal for equal sets of samples."""
        self.resolve()
        return digest_of(self.windows)
