"""The state machine of a partition against an oracle that keeps dicts of samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from threading import Lock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.attachments import NO_REF, Attachments, Kind
from common.labels import StringPool, canonical_labels, series_id
from common.record import RecordBatch
from common.store import MAX_TIME_MS, MIN_TIME_MS, Matcher, MatchOp
from common.tombstones import Tombstone
from storage_node.checkpoint import checkpoint, commit_merge, load
from storage_node.merging import merge, merge_attached, plan_merge
from storage_node.partition import PartitionState
from storage_node.purging import purge
from storage_node.reading import PartitionRead, read_rows
from storage_node.segments import Segments
from tests.memory_disk import MemoryDisk
from tests.oracles.histogram import NativeHistogram
from tests.oracles.partition import WINDOW_MS, OraclePartition

SERIES = [canonical_labels({"__name__": f"m{i % 3}", "i": str(i)}) for i in range(7)]
HISTOGRAMS = [NativeHistogram(count=n, sum=1.5, is_float=n > 1).encode() for n in range(3)]
OUTCOMES = ("accepted", "duplicate", "late", "too_old", "orphaned", "deleted")
MATCHERS = [
    Matcher(MatchOp.EQUAL, "__name__", "m0"),
    Matcher(MatchOp.REGEX, "i", "[1-4]"),
    Matcher(MatchOp.NOT_EQUAL, "__name__", ""),
    Matcher(MatchOp.EQUAL, "i", "none"),
]


def make_batch(
    producer_id: int,
    created_ms: int,
    declared: list[tuple[int, bytes]],
    samples: list[tuple[int, int, float]],
    attached: list[tuple[Kind, int, int, bytes]] = [],  # noqa: B006
) -> RecordBatch:
    ids = b"".join(series_id(labels) for _, labels in declared)
    offsets = np.cumsum([0, *(len(labels) for _, labels in declared)])
    return RecordBatch(
        producer_id=producer_id,
        created_ms=created_ms,
        declared_refs=np.array([ref for ref, _ in declared], dtype=np.uint32),
        declared_ids=np.frombuffer(ids, dtype=np.uint8).reshape(-1, 16),
        label_offsets=offsets.astype(np.int64),
        label_bytes=np.frombuffer(b"".join(labels for _, labels in declared), dtype=np.uint8),
        refs=np.array([ref for ref, _, _ in samples], dtype=np.uint32),
        timestamps=np.array([time for _, time, _ in samples], dtype=np.int64),
        values=np.array([value for _, _, value in samples], dtype=np.float64),
        attached=Attachments.of(attached),
    )


@dataclass
class Bench:
    """One state machine with its disk, the log it has read, and ways to disturb it."""

    retention_ms: int | None
    late_limit: int
    log: list[RecordBatch] = field(default_factory=list)
    disk: MemoryDisk = field(default_factory=MemoryDisk)
    lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self.open()

    def open(self) -> None:
        self.segments = Segments(self.disk)
        self.state = PartitionState(
            0, StringPool(), self.disk, self.segments, retention_ms=self.retention_ms, late_limit=self.late_limit
        )
        load(self.state)
        for offset in range(self.state.next_offset, len(self.log)):
            self.state.apply(offset, self.log[offset])

    def apply(self, batch: RecordBatch) -> None:
        self.log.append(batch)
        self.state.apply(len(self.log) - 1, batch)

    def crash(self, kept: int) -> None:
        self.disk.crash(min(kept, self.disk.n_unflushed))
        self.open()

    def merge(self) -> None:
        while purge(self.state, self.lock):
            pass
        while plan := plan_merge(self.state, least=2):
            batch, merged = merge(plan, self.segments, self.disk)
            assert commit_merge(self.state, plan.window, plan.old, merged, batch)
        while merge_attached(self.state, self.lock):
            pass

    def select(self, min_time: int, max_time: int) -> dict[bytes, dict[int, int | bytes]]:
        snos = self.state.present(self.state.index.select([]), min_time, max_time)
        plan = self.state.plan(snos, min_time, max_time)
        read = PartitionRead(plan, self.segments)
        offsets, times, bits = read_rows([read], len(snos))
        values: list[int | bytes] = bits.tolist()
        histograms = read.histograms(offsets, times, bits)
        if histograms is not None:
            positions, rows = histograms
            for i, position in enumerate(positions.tolist()):
                values[position] = rows.data[rows.offsets[i] : rows.offsets[i + 1]].tobytes()
        found = {}
        for row, labels in enumerate(self.state.index.table(snos)):
            part = slice(offsets[row], offsets[row + 1])
            if part.start < part.stop:
                row_times = times[part].tolist()
                assert all(a < b for a, b in pairwise(row_times))
                found[canonical_labels(labels)] = dict(zip(row_times, values[part], strict=True))
        return found


def _times(base: int) -> st.SearchStrategy[int]:
    near = st.integers(0, 40).map(lambda i: base + i * 15_000)
    far = st.integers(-6, 3).flatmap(lambda w: st.integers(0, 3).map(lambda i: base + w * WINDOW_MS + i * 1000))
    return st.one_of(near, near, near, far, st.sampled_from([MIN_TIME_MS, MAX_TIME_MS, -1, 0]))


@st.composite
def _records(draw: st.DrawFn, base: int) -> tuple[str, RecordBatch]:
    producer = draw(st.integers(1, 3))
    now = base + draw(st.integers(-1, 20)) * 3600 * 1000
    n_declared = draw(st.integers(0, 4))
    declared = [(draw(st.integers(0, 5)), SERIES[draw(st.integers(0, 6))]) for _ in range(n_declared)]
    sample = st.tuples(st.integers(0, 5), _times(base), st.sampled_from([0.0, -0.0, 1.5, float("nan"), 7.0]))
    samples = draw(st.lists(sample, max_size=25))
    kind = st.sampled_from([Kind.HISTOGRAM, Kind.HISTOGRAM, Kind.EXEMPLAR])
    row = st.tuples(kind, st.integers(0, 5), _times(base), st.sampled_from(HISTOGRAMS))
    attached = draw(st.lists(row, max_size=8)) if draw(st.booleans()) else []
    return "record", make_batch(producer, now, declared, samples, attached)


@st.composite
def _tombstones(draw: st.DrawFn, base: int) -> tuple[str, RecordBatch]:
    rows = []
    for _ in range(draw(st.integers(1, 2))):
        times = sorted((draw(_times(base)), draw(_times(base))))
        rows.append((Kind.TOMBSTONE, NO_REF, 0, Tombstone((draw(st.sampled_from(MATCHERS)),), *times).encode()))
    return "record", make_batch(4, base, [], [], rows)


def _actions() -> st.SearchStrategy[list[tuple[str, object]]]:
    bases = st.integers(0, 2).map(lambda w: 1_700_000_000_000 + w * 30 * 3600 * 1000)
    record, tombstone = bases.flatmap(_records), bases.flatmap(_tombstones)
    crash = st.tuples(st.just("crash"), st.integers(0, 3))
    names = ["checkpoint"] * 3 + ["flush", "merge", "merge", "observe"]
    other = st.sampled_from([(name, None) for name in names])
    return st.lists(st.one_of(record, record, record, tombstone, other, crash), min_size=1, max_size=25)


@settings(deadline=None, max_examples=100)
@given(_actions(), st.sampled_from([None, None, 24 * 3600 * 1000]), st.sampled_from([1, 10, 1 << 16]))
def test_a_partition_holds_what_the_log_says_whatever_happens_to_it(
    actions: list[tuple[str, object]], retention_ms: int | None, late_limit: int
) -> None:
    bench = Bench(retention_ms, late_limit)
    oracle = OraclePartition(retention_ms)
    for action, argument in actions:
        if action == "record":
            assert isinstance(argument, RecordBatch)
            bench.apply(argument)
            oracle.apply(argument)
        elif action == "checkpoint":
            checkpoint(bench.state)
        elif action == "flush":
            bench.disk.flush()
        elif action == "merge":
            bench.merge()
        elif action == "crash":
            assert isinstance(argument, int)
            bench.crash(argument)
        else:
            assert bench.state.n_samples == oracle.n_samples
            low = oracle.clock_ms - 6 * 3600 * 1000
            assert bench.select(low, oracle.clock_ms) == oracle.select(low, oracle.clock_ms)
    check(bench, oracle)


@pytest.mark.parametrize("seed", range(8))
def test_one_window_survives_many_checkpoints_merges_and_crashes(seed: int) -> None:
    random = np.random.default_rng(seed)
    bench, oracle = Bench(None, int(random.choice([3, 1000]))), OraclePartition()
    base = 1_700_006_400_000
    for _ in range(60):
        if random.random() < 0.2:
            times = sorted((base + random.integers(0, 600, 2) * 1000).tolist())
            row = Kind.TOMBSTONE, NO_REF, 0, Tombstone((MATCHERS[random.integers(4)],), *times).encode()
            tombstone = make_batch(2, base, [], [], [row])
            bench.apply(tombstone)
            oracle.apply(tombstone)
        samples = [
            (int(random.integers(0, 5)), base + int(random.integers(0, 600)) * 1000, 1.0) for _ in range(20)
        ]
        batch = make_batch(1, base, [(ref, SERIES[ref]) for ref in range(int(random.integers(0, 6)))], samples)
        bench.apply(batch)
        oracle.apply(batch)
        if random.random() < 0.6:
            checkpoint(bench.state)
        if random.random() < 0.3:
            bench.merge()
        if random.random() < 0.2:
            bench.disk.flush()
        if random.random() < 0.1:
            bench.crash(int(random.integers(0, 4)))
    check(bench, oracle)


def check(bench: Bench, oracle: OraclePartition) -> None:
    """What is stored, how much, its digest and all outcomes are as the oracle says."""
    assert bench.select(MIN_TIME_MS, MAX_TIME_MS) == oracle.select(MIN_TIME_MS, MAX_TIME_MS)
    assert bench.state.n_samples == oracle.n_samples
    assert bench.state.digest() == oracle.digest()
    counted = {name: getattr(bench.state.outcomes, name) for name in OUTCOMES}
    assert counted == {name: getattr(oracle, name) for name in OUTCOMES}
