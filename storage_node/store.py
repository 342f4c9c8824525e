"""Reads over all partitions of a node: `common.store.SeriesStore`."""

from __future__ import annotations

import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common import tally
from common.attachments import Kind
from common.histograms import EncodedHistograms
from common.labels import LabelTable, parse_canonical
from common.store import (
    ANY_NUMBER,
    Exemplar,
    Extent,
    Matcher,
    Metadata,
    NotCaughtUp,
    Selection,
    SeriesExemplars,
    Usage,
    check_n_samples,
    check_n_series,
)
from storage_node.attachments import Rows
from storage_node.disk import Disk
from storage_node.errors import NotHeld, SegmentGone
from storage_node.reading import PartitionRead, ReadPlan, fill_rows
from storage_node.timings import SECONDS
from storage_node.usage import usage_of
from storage_node.views import Shard, Views

MAX_REPLANS = 5
"""Plans that may be overtaken by merges before a read keeps merges out."""
GROUP_SAMPLES = 48 << 20
"""Samples for which room is made at a time; the bound from block headers may be far above what is in the range."""


class NodeStore:
    """Reads from the views of a node, in any thread.

    views: gives the views as they are now. high_watermarks: asks the log for the ends of the partitions held.
    on_wait: called when a read is about to wait for records to be applied.
    """

    def __init__(
        self,
        views: Callable[[], Views],
        high_watermarks: Callable[[], dict[int, int]],
        on_wait: Callable[[], None] = lambda: None,
    ) -> None:
        self._views = views
        self._high_watermarks = high_watermarks
        self._on_wait = on_wait
        self._applied = threading.Condition()
        self._only: tuple[int, ...] | None = None

    def over(self, partitions: Sequence[int]) -> NodeStore:
        """The store confined to some partitions; its reads raise NotHeld if the node does not hold them all."""
        confined = copy(self)
        confined._only = tuple(partitions)
        return confined

    @contextmanager
    def _reading(self) -> Iterator[tuple[Views, list[Shard]]]:
        """What to read from. Raises NotHeld, at the end too: what was read of a dropped partition is not whole."""
        views = self._views()
        wanted = views.shards if self._only is None else self._only
        shards = [_held(views, partition) for partition in wanted]
        try:
            yield views, shards
        except SegmentGone:
            _check_held(views, shards)
            raise
        _check_held(views, shards)

    def notify_applied(self) -> None:
        """Wake whoever waits for records to be applied."""
        with self._applied:
            self._applied.notify_all()

    def wait_caught_up(self, timeout_s: float) -> None:
        """See `SeriesStore`."""
        self.wait_applied(self._high_watermarks(), timeout_s)

    def wait_applied(self, wanted: Mapping[int, int], timeout_s: float) -> None:
        """Return when the next offset of each of these partitions has reached the wanted one.

        Raises:
            NotCaughtUp: it was not within `timeout_s`. NotHeld: the node does not hold one of them.
        """
        deadline = time.monotonic() + timeout_s
        with self._applied:
            while True:
                shards = self._views().shards
                missing = wanted.keys() - shards.keys()
                if missing:
                    raise NotHeld(min(missing))
                behind = [p for p, offset in wanted.items() if shards[p].state.next_offset < offset]
                if not behind:
                    return
                left = deadline - time.monotonic()
                if left <= 0:
                    partition = behind[0]
                    raise NotCaughtUp(
                        f"partition {partition} is at offset {shards[partition].state.next_offset} and has not "
                        f"reached {wanted[partition]} within {timeout_s:g} s"
                    )
                self._on_wait()
                self._applied.wait(left)

    def allow_partial(self) -> Mapping[int, str]:
        """See `SeriesStore`; what a node holds it can read."""
        return {}

    def select(
        self,
        matchers: Sequence[Matcher],
        min_time_ms: int,
        max_time_ms: int,
        max_samples: int,
        max_series: int = ANY_NUMBER,
    ) -> Selection:
        """See `SeriesStore`."""
        with self._reading() as (views, shards):
            return _select(views, shards, matchers, (min_time_ms, max_time_ms), max_samples, max_series)

    def series(
        self,
        matcher_sets: Sequence[Sequence[Matcher]],
        min_time_ms: int,
        max_time_ms: int,
        max_series: int = ANY_NUMBER,
    ) -> LabelTable:
        """See `SeriesStore`."""
        tables: list[LabelTable] = []
        with self._reading() as (views, shards):
            for shard in shards:
                snos = _present(shard, matcher_sets, min_time_ms, max_time_ms)
                check_n_series(sum(map(len, tables)) + len(snos), max_series)
                if len(snos):
                    tables.append(shard.state.index.table(snos))
            return _concatenate(tables, views)

    def label_names(
        self, matcher_sets: Sequence[Sequence[Matcher]], min_time_ms: int, max_time_ms: int
    ) -> list[str]:
        """See `SeriesStore`."""
        names: set[str] = set()
        with self._reading() as (_, shards):
            for shard in shards:
                snos = _present(shard, matcher_sets, min_time_ms, max_time_ms)
                index = shard.state.index
                names |= index.label_names(None if len(snos) == len(index) else snos)
        return sorted(names)

    def label_values(
        self, name: str, matcher_sets: Sequence[Sequence[Matcher]], min_time_ms: int, max_time_ms: int
    ) -> list[str]:
        """See `SeriesStore`."""
        values: set[str] = set()
        with self._reading() as (_, shards):
            for shard in shards:
                snos = _present(shard, matcher_sets, min_time_ms, max_time_ms)
                index = shard.state.index
                values |= index.label_values(name, None if len(snos) == len(index) else snos)
        return sorted(values)

    def metadata(self, metric: str | None, tenants: Sequence[str] | None = None) -> dict[str, list[Metadata]]:
        """See `SeriesStore`."""
        found: dict[str, set[Metadata]] = {}
        with self._reading() as (_, shards):
            for shard in shards:
                with shard.lock:
                    for family, known in shard.state.metadata.of(metric, tenants).items():
                        found.setdefault(family, set()).update(known)
        return {family: sorted(known) for family, known in found.items()}

    def exemplars(
        self, matcher_sets: Sequence[Sequence[Matcher]], min_time_ms: int, max_time_ms: int
    ) -> list[SeriesExemplars]:
        """See `SeriesStore`."""
        found: list[SeriesExemplars] = []
        with self._reading() as (views, shards):
            for shard in shards:
                found += _exemplars(shard, views.disk, matcher_sets, min_time_ms, max_time_ms)
        return found

    def extent(self, matcher_sets: Sequence[Sequence[Matcher]] = ()) -> Extent:
        """See `SeriesStore`."""
        extent = Extent()
        with self._reading() as (_, shards):
            for shard in shards:
                snos = _matching(shard, matcher_sets) if matcher_sets else None
                with shard.lock:
                    known = None if snos is None else _known(shard, snos)
                    extent = extent.joined(shard.state.extent(known))
        return extent

    def births(
        self, matcher_sets: Sequence[Sequence[Matcher]], min_time_ms: int, max_time_ms: int
    ) -> dict[int, int]:
        """See `SeriesStore`."""
        found: Counter[int] = Counter()
        with self._reading() as (_, shards):
            for shard in shards:
                snos = _matching(shard, matcher_sets)
                with shard.lock:
                    found.update(shard.state.births(_known(shard, snos), min_time_ms, max_time_ms))
        return dict(found)

    def usage(self, *, with_samples: bool) -> Usage:
        """See `SeriesStore`."""
        found = Usage({})
        with self._reading() as (views, shards):
            for shard in shards:
                found = found.joined(Usage(usage_of(views, shard, with_samples=with_samples)))
                with shard.lock:
                    found = found.joined(Usage({}, shard.state.n_pending))
        return found


def _held(views: Views, partition: int) -> Shard:
    shard = views.shards.get(partition)
    if shard is None:
        raise NotHeld(partition)
    return shard


def _check_held(views: Views, shards: Sequence[Shard]) -> None:
    for shard in shards:
        if views.shards.get(shard.state.partition) is not shard:
            raise NotHeld(shard.state.partition)


class _Part(NamedTuple):
    """Samples of some series, and which of them are histograms: positions among them, and the bytes."""

    offsets: NDArray[np.int64]
    timestamps: NDArray[np.int64]
    value_bits: NDArray[np.uint64]
    histograms: list[tuple[NDArray[np.int64], Rows]]


def _fill(group: list[PartitionRead], counts: NDArray[np.int64]) -> _Part:
    samples = fill_rows(group, counts)
    found = [read.histograms(*samples) for read in group]
    return _Part(*samples, [one for one in found if one is not None and len(one[0])])


class _Limit:
    """Counts samples and refuses too many."""

    def __init__(self, max_samples: int) -> None:
        self._max_samples = max_samples
        self._n_samples = 0

    def check(self, part: _Part) -> _Part:
        self._n_samples += len(part.timestamps)
        check_n_samples(self._n_samples, self._max_samples)
        return part


def _select(
    views: Views,
    shards: list[Shard],
    matchers: Sequence[Matcher],
    times: tuple[int, int],
    max_samples: int,
    max_series: int,
) -> Selection:
    limit = _Limit(max_samples)
    counts_of_query = tally.current()
    counts_of_query.partitions = max(counts_of_query.partitions, len(shards))
    started = time.perf_counter()
    matching = [_matching(shard, [matchers]) for shard in shards]
    matched = time.perf_counter()
    SECONDS["match"].observe(matched - started)
    if sum(map(len, matching)) > max_series:
        _count_present(shards, matching, *times, max_series)
    tables: list[LabelTable] = []
    done: list[_Part] = []
    group: list[PartitionRead] = []
    counts: list[NDArray[np.int64]] = []
    n_rows = bound = 0
    for shard, snos in zip(shards, matching, strict=True):
        found = _read(views, shard, snos, *times, n_rows)
        if found is None:
            continue
        plan, read = found
        counts_of_query.block_bytes += read.block_bytes
        tables.append(shard.state.index.table(plan.snos))
        part = np.zeros(n_rows + len(plan.snos), dtype=np.int64)
        read.count(part)
        n_rows += len(plan.snos)
        counts.append(part[len(part) - len(plan.snos) :])
        group.append(read)
        bound += int(counts[-1].sum())
        if bound > GROUP_SAMPLES:
            done.append(limit.check(_fill(group, np.concatenate(counts))))
            group, counts, n_rows, bound = [], [], 0, 0
    if group:
        done.append(limit.check(_fill(group, np.concatenate(counts))))
    SECONDS["read"].observe(time.perf_counter() - matched)
    return _selection(tables, done, views)


def _matching(shard: Shard, matcher_sets: Sequence[Sequence[Matcher]]) -> NDArray[np.uint32]:
    index = shard.state.index
    found = [index.select(matchers) for matchers in matcher_sets or [[]]]
    return found[0] if len(found) == 1 else np.unique(np.concatenate(found))


def _present(
    shard: Shard, matcher_sets: Sequence[Sequence[Matcher]], min_time: int, max_time: int
) -> NDArray[np.uint32]:
    snos = _matching(shard, matcher_sets)
    with shard.lock:
        return shard.state.present(_known(shard, snos), min_time, max_time)


def _count_present(
    shards: Sequence[Shard], matching: list[NDArray[np.uint32]], min_time: int, max_time: int, max_series: int
) -> None:
    """Raise TooManySeries if more than that many of the series are in the range."""
    n_series = 0
    for shard, snos in zip(shards, matching, strict=True):
        with shard.lock:
            n_series += len(shard.state.present(_known(shard, snos), min_time, max_time))
        check_n_series(n_series, max_series)


def _exemplars(
    shard: Shard, disk: Disk, matcher_sets: Sequence[Sequence[Matcher]], min_time: int, max_time: int
) -> list[SeriesExemplars]:
    snos = _known(shard, _matching(shard, matcher_sets))
    rows = None
    for attempt in range(MAX_REPLANS + 1):
        with ExitStack() as stack:
            stack.enter_context(shard.lock)
            plan = shard.state.attached.plan(max(min_time, shard.state.horizon_ms), max_time, snos)
            if plan is None:
                return []
            is_wanted = np.zeros(len(shard.state.series), dtype=np.bool_)
            is_wanted[snos] = True
            if attempt < MAX_REPLANS:
                # Merges may go on meanwhile; at last they are kept out.
                stack.close()
            try:
                rows = plan.read(disk, is_wanted, Kind.EXEMPLAR)
                break
            except SegmentGone:
                continue
    if rows is None:
        return []
    rows = rows.in_order()
    table = shard.state.index.table(np.unique(rows.snos))
    found = {sno: SeriesExemplars(dict(table.labels(i))) for i, sno in enumerate(np.unique(rows.snos).tolist())}
    for i, (sno, time_ms) in enumerate(zip(rows.snos.tolist(), rows.times.tolist(), strict=True)):
        row = rows.data[rows.offsets[i] : rows.offsets[i + 1]].tobytes()
        exemplar = Exemplar(parse_canonical(row[8:]), struct.unpack_from("<d", row)[0], time_ms)
        found[sno].exemplars.append(exemplar)
    return list(found.values())


def _known(shard: Shard, snos: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Without series that were registered a moment ago and have no sample yet."""
    n_series = len(shard.state.series)
    if not len(snos) or snos[-1] < n_series:
        return snos
    known: NDArray[np.uint32] = snos[: np.searchsorted(snos, n_series)]
    return known


def _read(
    views: Views, shard: Shard, snos: NDArray[np.uint32], min_time: int, max_time: int, first_row: int
) -> tuple[ReadPlan, PartitionRead] | None:
    """Plan a read of one partition and fetch its blocks; None if none of the series is in the range."""
    if not len(snos):
        return None
    for _ in range(MAX_REPLANS):
        with shard.lock:
            plan = _plan(shard, snos, min_time, max_time)
        if plan is None:
            return None
        try:
            return plan, PartitionRead(plan, views.segments, first_row)
        except SegmentGone:
            continue
    with shard.lock:
        plan = _plan(shard, snos, min_time, max_time)
        return None if plan is None else (plan, PartitionRead(plan, views.segments, first_row))


def _plan(shard: Shard, snos: NDArray[np.uint32], min_time: int, max_time: int) -> ReadPlan | None:
    present = shard.state.present(_known(shard, snos), min_time, max_time)
    return shard.state.plan(present, min_time, max_time) if len(present) else None


def _selection(
    tables: list[LabelTable],
    done: list[_Part],
    views: Views,
) -> Selection:
    labels = _concatenate(tables, views)
    if not done:
        nothing = np.zeros(0, dtype=np.int64)
        return Selection(labels, np.zeros(1, dtype=np.int64), nothing, nothing.view(np.float64))
    if len(done) == 1:
        offsets, timestamps, value_bits, _ = done[0]
    else:
        lengths = np.concatenate([np.diff(part.offsets) for part in done])
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        timestamps = np.concatenate([part.timestamps for part in done])
        value_bits = np.concatenate([part.value_bits for part in done])
    filled = offsets[1:] > offsets[:-1]
    if not filled.all():
        labels = labels.take(filled)
        offsets = np.append(offsets[:-1][filled], offsets[-1])
    return Selection(labels, offsets, timestamps, value_bits.view(np.float64), _histograms(done))


def _histograms(done: list[_Part]) -> EncodedHistograms | None:
    """Those of all parts, in the order of their positions."""
    positions, rows, before = [], [], 0
    for part in done:
        # Each partition's series come after those of the one before, so positions ascend.
        for places, found in part.histograms:
            positions.append(places + before)
            rows.append(found)
        before += len(part.timestamps)
    if not rows:
        return None
    joined = Rows.joined(rows)
    return EncodedHistograms(np.concatenate(positions), joined.offsets, joined.data)


def _concatenate(tables: list[LabelTable], views: Views) -> LabelTable:
    """One table of all series; the codes are those of the node's pool already."""
    if len(tables) == 1:
        return tables[0]
    if tables and all(table.names == tables[0].names for table in tables):
        codes = np.concatenate([table.codes for table in tables], axis=1)
        return LabelTable(views.pool, tables[0].names, codes)
    names = tuple(sorted({name for table in tables for name in table.names}))
    row = {name: i for i, name in enumerate(names)}
    codes = np.zeros((len(names), sum(map(len, tables))), dtype=np.int32)
    at = 0
    for table in tables:
        codes[[row[name] for name in table.names], at : at + len(table)] = table.codes
        at += len(table)
    return LabelTable(views.pool, names, codes)
