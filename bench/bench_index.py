"""Series index of one partition: register, write, load, select, table.

    python -m bench.bench_index [--small]

Series look like those of node exporters behind an orchestrator: 10 labels, of which one has a value of its own for
every tenth series. Times are the best of several runs, in ms, except for those that change the index.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from common.labels import StringPool, canonical_labels
from common.store import Matcher, MatchOp
from storage_node.disk import Batch, RocksDisk, Subtree
from storage_node.index import SeriesIndex

BATCH = 20_000
PREFIX = b"index"
Columns = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8]]


class IndexKeys(Subtree):
    """A RocksDB that holds the keys of one index and nothing else."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tabor-bench-")
        self._rocks = RocksDisk(Path(self._folder.name))
        super().__init__(self._rocks, PREFIX)
        self.n_puts = self.n_bytes = 0

    def commit(self, index: SeriesIndex) -> None:
        batch = Batch()
        index.write_changes(lambda key, value: batch.put(PREFIX + key, value))
        self._rocks.write(batch)
        self._rocks.flush()
        index.changes_written()
        self.n_puts, self.n_bytes = len(batch.puts), batch.size_bytes

    def close(self) -> None:
        self._rocks.close()
        self._folder.cleanup()


def series(first: int, last: int) -> Columns:
    """Canonical label sets and ids of the series [first, last)."""
    sets = []
    for i in range(first, last):
        host, metric = i // 1000, i % 1000
        labels = {
            "__name__": f"node_metric_{metric // 4}_total",
            "cluster": f"c{host % 3}",
            "container": f"container-{metric % 7}",
            "cpu": str(metric % 4),
            "device": f"sd{'abcdefgh'[metric % 8]}",
            "instance": f"10.0.{host // 250}.{host % 250}:9100",
            "job": "node" if host % 100 else "rare",
            "mode": ("idle", "user", "system", "iowait")[metric % 4],
            "namespace": f"namespace-{host % 40}",
            "pod": f"pod-{i // 10:07d}-x{i // 10 * 7919 % 10007:05d}",
        }
        sets.append(canonical_labels(labels))
    offsets = np.zeros(len(sets) + 1, dtype=np.int64)
    offsets[1:] = np.cumsum([len(labels) for labels in sets])
    ids = b"".join(xxhash.xxh3_128_digest(labels) for labels in sets)
    data = np.frombuffer(b"".join(sets), dtype=np.uint8)
    return np.frombuffer(ids, dtype=np.uint8).reshape(-1, 16), offsets, data


def rss_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def best_ms(run: Callable[[], Any], repeat: int = 5) -> float:
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def report(what: str, value: float, unit: str) -> None:
    print(f"{what:<58}{value:>12,.2f} {unit}", flush=True)


def bench(n_series: int) -> str:
    """Run all measurements; returns a checksum of what was selected."""
    disk = IndexKeys()
    try:
        warm = SeriesIndex(0, StringPool(), disk)
        warm.register(*series(0, 3))
        warm.write_changes(lambda key, value: None)
        warm.table(warm.select([]))
        return bench_reads(bench_writes(n_series, disk), n_series)
    finally:
        disk.close()


def bench_writes(n_series: int, disk: IndexKeys) -> SeriesIndex:
    index = SeriesIndex(0, StringPool(), disk)
    before, took = rss_bytes(), 0.0
    last_100k = 0.0
    for first in range(0, n_series, BATCH):
        columns = series(first, min(first + BATCH, n_series))
        start = time.perf_counter()
        index.register(*columns)
        took += time.perf_counter() - start
        if first >= n_series - 100_000:
            last_100k += time.perf_counter() - start
    del columns
    report(f"register {n_series:,} new series", 1000 * took, "ms")
    report("  of these the last 100,000", 1000 * last_100k, "ms")
    report("  RSS a series, not yet written", (rss_bytes() - before) / n_series, "B")
    known = series(0, min(BATCH, n_series))
    report(f"register {len(known[0]):,} known series", best_ms(lambda known=known: index.register(*known)), "ms")  # type: ignore[misc]
    equal = [Matcher(MatchOp.EQUAL, "job", "rare")]
    report("select 1 % by equality, nothing written", best_ms(lambda: index.select(equal)), "ms")

    del known
    start = time.perf_counter()
    disk.commit(index)
    report("write_changes, batch, flush", 1000 * (time.perf_counter() - start), "ms")
    report("  keys", disk.n_puts, "")
    report("  bytes a series on disk", disk.n_bytes / n_series, "B")
    report("  RSS a series, written", (rss_bytes() - before) / n_series, "B")
    report("  of these arrays", index.nbytes / n_series, "B")
    del index
    before = rss_bytes()
    index = SeriesIndex(0, StringPool(), disk)
    start = time.perf_counter()
    index.load()
    report("load", 1000 * (time.perf_counter() - start), "ms")
    report("  RSS a series", (rss_bytes() - before) / n_series, "B")
    return index


def bench_reads(index: SeriesIndex, n_series: int) -> str:
    checksum = hashlib.blake2b(digest_size=8)
    queries: dict[str, list[Matcher]] = {
        "1 % by equality": [Matcher(MatchOp.EQUAL, "job", "rare")],
        "all but 1 %": [Matcher(MatchOp.NOT_EQUAL, "job", "rare")],
        "metric and job": [
            Matcher(MatchOp.EQUAL, "__name__", "node_metric_7_total"),
            Matcher(MatchOp.EQUAL, "job", "node"),
        ],
        "metric and mode=~a|b and instance!=": [
            Matcher(MatchOp.EQUAL, "__name__", "node_metric_7_total"),
            Matcher(MatchOp.REGEX, "mode", "idle|user"),
            Matcher(MatchOp.NOT_EQUAL, "instance", "10.0.0.1:9100"),
        ],
        "metric and a regex over pod": [
            Matcher(MatchOp.EQUAL, "__name__", "node_metric_7_total"),
            Matcher(MatchOp.REGEX, "pod", "pod-0.*[0-9]3-x.*"),
        ],
        "regex over all values of pod": [Matcher(MatchOp.REGEX, "pod", "pod-0.*[13]5-x.*")],
        "prefix over all values of pod": [Matcher(MatchOp.REGEX, "pod", "pod-00001.*")],
        'pod!="" (all)': [Matcher(MatchOp.NOT_EQUAL, "pod", "")],
    }
    report("values of pod", len(index.label_values("pod")), "")
    for what, matchers in queries.items():
        start = time.perf_counter()
        found = index.select(matchers)
        cold = 1000 * (time.perf_counter() - start)
        warm = best_ms(lambda matchers=matchers: index.select(matchers))  # type: ignore[misc]
        report(f"select {what}: {len(found):,} series, first time", cold, "ms")
        report("  again", warm, "ms")
        checksum.update(found.tobytes())
    some = index.select(queries["1 % by equality"])[:10_000]
    table = index.table(some)
    checksum.update(repr([table.labels(row) for row in range(min(100, len(some)))]).encode())
    report(f"table of {len(some):,} series", best_ms(lambda: index.table(some)), "ms")
    report(f"names of {len(some):,} series", best_ms(lambda: index.label_names(some)), "ms")
    every = np.arange(n_series, dtype=np.uint32)[:500_000]
    report(f"metric_order of {len(every):,} series", best_ms(lambda: index.metric_order(every)), "ms")
    return checksum.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="2,000 series instead of 1,000,000")
    parser.add_argument("--series", type=int, default=None)
    arguments = parser.parse_args()
    n_series = arguments.series or (2_000 if arguments.small else 1_000_000)
    print(f"checksum {bench(n_series)}")


if __name__ == "__main__":
    main()
