"""Speed and memory of the storage node: apply, checkpoint, replay, select, RAM of a series.

    python -m bench.bench_storage [apply] [late] [select] [replay] [merge] [memory] [--small]

Everything is synthetic and seeded: SERIES series of counters, gauges and constants over some 20 labels, scraped
every 15 s. Without names all parts run; each prints one line a figure and a checksum of what was computed.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from common.labels import StringPool, canonical_labels, series_id
from common.log.base import LogRecord
from common.record import RecordBatch, encode_record
from common.store import MAX_TIME_MS, MIN_TIME_MS, Matcher, MatchOp
from storage_node.checkpoint import checkpoint, commit_merge, load
from storage_node.config import NodeConfig
from storage_node.disk import RocksDisk
from storage_node.merging import merge, plan_merge
from storage_node.partition import PartitionState
from storage_node.segments import Segments
from storage_node.store import NodeStore
from storage_node.views import Views

START_MS = 1_790_000_000_000
SCRAPE_MS = 15_000
PRODUCER = 0x5EED


def labels_of(series: int) -> dict[str, str]:
    """About twelve labels of a service in a cluster; 20 series of different metrics share an instance."""
    instance = series // 20
    return {
        "__name__": f"app_requests_{series % 20}_total",
        "instance": f"10.{instance // 65536}.{instance // 256 % 256}.{instance % 256}:9100",
        "job": f"job-{instance % 40}",
        "cluster": f"eu-{instance % 3}",
        "namespace": f"team-{instance % 100}",
        "pod": f"app-{instance % 400}-{instance:08x}",
        "method": ("GET", "POST", "PUT", "DELETE")[series % 4],
        "code": ("200", "404", "500")[series % 3],
    }


class Source:
    """Batches of all series, scrape after scrape, for one partition."""

    def __init__(self, n_series: int, first: int = 0) -> None:
        sets = [canonical_labels(labels_of(first + i)) for i in range(n_series)]
        self.n_series = n_series
        self.ids = np.frombuffer(b"".join(map(series_id, sets)), dtype=np.uint8).reshape(-1, 16)
        self.offsets = np.concatenate(([0], np.cumsum([len(s) for s in sets]))).astype(np.int64)
        self.data = np.frombuffer(b"".join(sets), dtype=np.uint8)
        self._random = np.random.default_rng(1)
        self._values = self._random.integers(0, 1000, n_series).astype(np.float64)

    def declaration(self) -> RecordBatch:
        refs = np.arange(self.n_series, dtype=np.uint32)
        nothing = np.zeros(0, dtype=np.int64)
        return RecordBatch(
            PRODUCER, START_MS, refs, self.ids, self.offsets, self.data,
            nothing.astype(np.uint32), nothing, nothing.astype(np.float64),
        )  # fmt: skip

    def batches(self, n_scrapes: int, record_samples: int, *, late: float = 0.0) -> Iterator[RecordBatch]:
        for scrape in range(n_scrapes):
            now = START_MS + scrape * SCRAPE_MS
            self._values += self._random.integers(0, 50, self.n_series)
            times = np.full(self.n_series, now, dtype=np.int64)
            if late:
                times[self._random.random(self.n_series) < late] -= 7 * SCRAPE_MS + 1
            for first in range(0, self.n_series, record_samples):
                part = slice(first, min(first + record_samples, self.n_series))
                refs = np.arange(part.start, part.stop, dtype=np.uint32)
                yield RecordBatch(
                    PRODUCER, now, refs[:0], self.ids[:0], np.zeros(1, dtype=np.int64), self.data[:0],
                    refs, times[part].copy(), self._values[part].copy(),
                )  # fmt: skip


def new_state(folder: Path) -> PartitionState:
    disk = RocksDisk(folder)
    state = PartitionState(0, StringPool(), disk, Segments(disk))
    load(state)
    return state


def bench_apply(n_series: int, n_scrapes: int, record_samples: int, late: float = 0.0) -> None:
    with tempfile.TemporaryDirectory() as folder:
        state = new_state(Path(folder))
        source = Source(n_series)
        state.apply(0, source.declaration())
        batches = list(source.batches(n_scrapes, record_samples, late=late))
        state.apply(1, batches[0])
        started = time.process_time()
        for offset, batch in enumerate(batches[1:], 2):
            state.apply(offset, batch)
        state.resolve()
        elapsed = time.process_time() - started
        n = n_series * n_scrapes - len(batches[0].refs)
        print(
            f"apply, records of {record_samples}, {late:.0%} late: {elapsed / n * 1e9:.1f} ns/sample "
            f"[{state.digest()[:8]} {state.outcomes.late}]"
        )
        started = time.process_time()
        size = checkpoint(state)
        elapsed = time.process_time() - started
        n = state.n_samples
        print(f"checkpoint of {n} samples: {elapsed / n * 1e9:.1f} ns/sample, {size / n:.2f} B/sample")
        state.disk.close()


def make_records(n_series: int, n_scrapes: int, n_partitions: int, record_samples: int) -> list[LogRecord]:
    records = []
    for partition in range(n_partitions):
        source = Source(n_series // n_partitions, partition * (n_series // n_partitions))
        values = [encode_record(source.declaration())]
        values += [encode_record(batch) for batch in source.batches(n_scrapes, record_samples)]
        records.append([LogRecord(partition, offset, value) for offset, value in enumerate(values)])
    return [record for row in zip(*records, strict=True) for record in row]


def bench_replay(n_series: int, n_scrapes: int, n_partitions: int, record_samples: int) -> None:
    records = make_records(n_series, n_scrapes, n_partitions, record_samples)
    with tempfile.TemporaryDirectory() as folder:
        config = NodeConfig("bench", Path(folder))
        views = Views(Path(folder) / "views", n_partitions, config)
        cpu, started = time.process_time(), time.perf_counter()
        for first in range(0, len(records), 256):
            views.apply(records[first : first + 256], 0.0)
            views.checkpoint_due(0.0)
        views.save(0.0)
        elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
        n = sum(shard.samples for shard in views.shards.values())
        log_bytes = sum(len(record.value) for record in records)
        disk_bytes = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        print(
            f"replay, records of {record_samples}: {n / elapsed / 1e6:.2f} M samples/s, "
            f"{n / cpu / 1e6:.2f} M per CPU second, log {log_bytes / n:.2f} B/sample, disk {disk_bytes / n:.2f} "
            f"[{sum(shard.state.n_samples for shard in views.shards.values())}]"
        )
        views.close()


def bench_merge(n_series: int, n_scrapes: int, n_partitions: int) -> None:
    """Small heads, hence many segments; merges as soon as they are due."""
    records = make_records(n_series, n_scrapes, n_partitions, 5_000)
    with tempfile.TemporaryDirectory() as folder:
        config = NodeConfig("bench", Path(folder), head_samples=400_000)
        views = Views(Path(folder) / "views", n_partitions, config)
        merged_samples, cpu, written = 0, 0.0, _written_bytes()
        for first in range(0, len(records), 64):
            views.apply(records[first : first + 64], 0.0)
            views.checkpoint_due(0.0)
            started = time.thread_time()
            for shard in views.shards.values():
                while plan := plan_merge(shard.state):
                    batch, merged = merge(plan, views.segments, views.disk)
                    assert commit_merge(shard.state, plan.window, plan.old, merged, batch)
                    merged_samples += merged.n_samples
            cpu += time.thread_time() - started
        views.save(0.0)
        n = sum(shard.samples for shard in views.shards.values())
        segment_bytes = sum(shard.state.size_bytes for shard in views.shards.values())
        disk_bytes = sum(
            path.stat().st_size for path in Path(folder).rglob("*") if path.suffix in (".blob", ".sst")
        )
        print(
            f"merge: {merged_samples / n:.2f} times a sample, {cpu / max(merged_samples, 1) * 1e9:.0f} ns each; "
            f"B/sample: segments {segment_bytes / n:.2f}, files {disk_bytes / n:.2f}, "
            f"written {(_written_bytes() - written) / n:.2f} "
            f"[{sum(s.state.n_samples for s in views.shards.values())}]"
        )
        views.close()


def bench_select(n_series: int, n_scrapes: int, n_partitions: int) -> None:
    records = make_records(n_series, n_scrapes, n_partitions, 10_000)
    with tempfile.TemporaryDirectory() as folder:
        config = NodeConfig("bench", Path(folder))
        views = Views(Path(folder) / "views", n_partitions, config)
        for first in range(0, len(records), 256):
            views.apply(records[first : first + 256], 0.0)
            views.checkpoint_due(0.0)
        store = NodeStore(lambda: views, list)
        few = [Matcher(MatchOp.EQUAL, "pod", f"app-7-{7:08x}"), Matcher(MatchOp.EQUAL, "code", "200")]
        end = START_MS + n_scrapes * SCRAPE_MS
        for name, matchers, first_ms in (
            ("everything", [], MIN_TIME_MS),
            ("everything, 5 minutes", [], end - 300_000),
            ("one metric", [Matcher(MatchOp.EQUAL, "__name__", "app_requests_3_total")], MIN_TIME_MS),
            ("few", few, MIN_TIME_MS),
            ("few, 1 hour", few, end - 3_600_000),
        ):
            best = 1e9
            for _ in range(5):
                started = time.perf_counter()
                found = store.select(matchers, first_ms, MAX_TIME_MS, 1 << 40)
                best = min(best, time.perf_counter() - started)
            print(
                f"select {name}: {best * 1e3:.2f} ms, {len(found.labels)} series, {len(found.timestamps)} samples "
                f"[{int(found.timestamps.sum()) & 0xFFFFFFFF:08x}]"
            )
        views.close()


def bench_memory(n_series: int, n_scrapes: int, n_partitions: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        views = Views(Path(folder) / "views", n_partitions, NodeConfig("bench", Path(folder)))
        warm = make_records(n_partitions * 10, 2, n_partitions, 1000)
        views.apply(warm, 0.0)
        views.save(0.0)
        before = _rss_bytes()
        offsets = [len(warm)] * n_partitions
        per_partition = n_series // n_partitions
        for partition in range(n_partitions):
            source = Source(per_partition, partition * per_partition)
            for first in range(0, per_partition, 2000):
                views.apply([_part(source, partition, offsets, first, 2000)], 0.0)
        for scrape in range(n_scrapes):
            for partition in range(n_partitions):
                refs = np.arange(per_partition, dtype=np.uint32)
                times = np.full(len(refs), START_MS + scrape * SCRAPE_MS)
                batch = RecordBatch(
                    PRODUCER, START_MS, refs[:0], np.zeros((0, 16), np.uint8), np.zeros(1, np.int64),
                    np.zeros(0, np.uint8), refs, times, refs * 1.0 + scrape,
                )  # fmt: skip
                views.apply([LogRecord(partition, offsets[partition], encode_record(batch))], 0.0)
                offsets[partition] += 1
            views.checkpoint_due(0.0)
        del batch
        n = sum(len(shard.state.series) for shard in views.shards.values())
        head = sum(shard.state.n_head for shard in views.shards.values())
        per_series = (_rss_bytes() - before) / n
        print(f"memory: {per_series:.0f} B RSS per active series, {n} series, {head} samples in heads")
        print(f"  index arrays {sum(s.state.index.nbytes for s in views.shards.values()) / n:.0f} B per series")
        print(f"  peak RSS {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB")
        views.close()


def _part(source: Source, partition: int, offsets: list[int], first: int, n: int) -> LogRecord:
    rows = slice(first, min(first + n, source.n_series))
    start, end = int(source.offsets[rows.start]), int(source.offsets[rows.stop])
    nothing = np.zeros(0, dtype=np.int64)
    batch = RecordBatch(
        PRODUCER, START_MS, np.arange(rows.start, rows.stop, dtype=np.uint32), source.ids[rows],
        source.offsets[rows.start : rows.stop + 1] - start, source.data[start:end],
        nothing.astype(np.uint32), nothing, nothing.astype(np.float64),
    )  # fmt: skip
    offsets[partition] += 1
    return LogRecord(partition, offsets[partition] - 1, encode_record(batch))


def _written_bytes() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("wchar")).split()[1])


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args(arguments)
    parts = options.parts or ["apply", "late", "select", "replay", "merge", "memory"]
    scale = 20 if options.small else 1
    if "apply" in parts:
        bench_apply(12_000 // scale, 100, 600)
        bench_apply(12_000 // scale, 100, 12_000)
    if "late" in parts:
        bench_apply(12_000 // scale, 100, 600, late=0.05)
    if "select" in parts:
        bench_select(10_000 // scale, 1440 if scale == 1 else 100, 16)
    if "replay" in parts:
        bench_replay(50_000 // scale, 240, 16, 600)
        bench_replay(50_000 // scale, 240, 16, 10_000)
    if "merge" in parts:
        bench_merge(10_000 // scale, 2880 if scale == 1 else 300, 4)
    if "memory" in parts:
        bench_memory(500_000 // scale, 12, 16)


if __name__ == "__main__":
    main(sys.argv[1:])
