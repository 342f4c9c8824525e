"""Backup and restore to a folder, against `cp -r` of the same views in the same run.

    python -m bench.bench_backup [--small]

10,000 counters with two decimals × 8 hours of samples every 15 s, through a local log into the views; then one
hour more. Rates are bytes of keys and values by wall time, CPU is of the process.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.log.local import LocalLog
from common.store import Matcher, MatchOp
from ingest import Producer
from storage_node.backup.choosing import choose
from storage_node.backup.manifest import run_at
from storage_node.backup.restoring import is_restored, restore_partition
from storage_node.backup.source import of_this_process
from storage_node.backup.target import FolderTarget
from storage_node.backup.writing import Progress, Writer
from storage_node.config import NodeConfig
from storage_node.copies import Copies
from storage_node.disk import RocksDisk
from storage_node.service import StorageNode

T0 = 1_790_006_400_000
STEP_MS = 15_000
HOUR_STEPS = 240
PARTITIONS = 4


class Measured(NamedTuple):
    seconds: float
    cpu_seconds: float


def measured(act: Callable[[], object]) -> Measured:
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    act()
    return Measured(time.perf_counter() - start_s, time.process_time() - start_cpu_s)


def copy(folder: Path, into: Path) -> None:
    """Copy a folder as an operator would, and wait until it is on disk, as a backup is."""
    subprocess.run(["cp", "-r", folder, into], check=True)
    subprocess.run(["sync", "-f", into], check=True)


class Source:
    """A node with counters in it."""

    def __init__(self, folder: Path, n_series: int) -> None:
        self.folder, self.n_series = folder, n_series
        self._random = np.random.default_rng(1)
        self._last = np.zeros(n_series)
        self._steps = 0
        self.log = LocalLog(folder / "log", PARTITIONS)
        self.node = StorageNode(self.log, NodeConfig("bench", folder))
        self.node.start()
        self.copies = Copies(lambda: self.node.views, float("inf"))
        self.target = FolderTarget(folder.parent / "backups", create=True)
        self._runs = 0

    def write(self, n_steps: int) -> None:
        times = T0 + STEP_MS * (self._steps + np.arange(n_steps, dtype=np.int64))
        self._steps += n_steps
        with Producer(self.log) as producer:
            labels = [{"__name__": "m", "i": str(i), "job": str(i % 10)} for i in range(self.n_series)]
            for i, one in enumerate(producer.series(labels)):
                values = self._last[i] + np.cumsum(np.round(self._random.random(n_steps) * 10, 2))
                self._last[i] = values[-1]
                producer.write(one, times, values)
            producer.flush()
        self.node.store.wait_caught_up(600)
        self.node.views.save(time.monotonic())

    def back_up(self) -> Progress:
        self._runs += 1
        with Writer(self.target, run_at(1_795_849_200 + self._runs), PARTITIONS) as writer:
            for partition in range(PARTITIONS):
                writer.write(of_this_process(self.copies, "bench", partition))
            return writer.done

    def query(self) -> float:
        """Seconds that it takes to read an hour of a tenth of the series."""
        start_s = time.perf_counter()
        matchers = [Matcher(MatchOp.EQUAL, "job", "3")]
        found = self.node.store.select(matchers, T0, T0 + HOUR_STEPS * STEP_MS, 1 << 40)
        assert len(found.timestamps)
        return time.perf_counter() - start_s

    def latencies(self, under: Callable[[], object] | None, least: int) -> list[float]:
        """Of queries one after another: `least`, or as long as something else runs."""
        thread = threading.Thread(target=under or (lambda: None))
        thread.start()
        found: list[float] = []
        while thread.is_alive() or len(found) < least:
            found.append(self.query())
        thread.join()
        return found

    def restore(self, folder: Path) -> int:
        """Into an empty folder; returns bytes of keys and values."""
        backup = choose(self.target, None)
        disk = RocksDisk(folder)
        for manifest in backup.manifests.values():
            restore_partition(self.target, manifest, disk)
            assert is_restored(disk, manifest)
        disk.close()
        return sum(manifest.size_bytes for manifest in backup.manifests.values())

    def close(self) -> None:
        self.node.close()
        self.log.close()


def bench(n_series: int, n_steps: int) -> tuple[int, int]:
    """Returns bytes of keys and values that were backed up, and restored; they are the same."""
    with tempfile.TemporaryDirectory(prefix="tabor-bench-") as name:
        top = Path(name)
        source = Source(top / "data", n_series)
        source.write(n_steps)
        source.query()

        def report(what: str, n_bytes: int, took: Measured) -> None:
            rate = f"{n_bytes / 1e6 / took.seconds:8.0f} MB/s"
            times = f"{took.seconds:7.2f} s {took.cpu_seconds:7.2f} s CPU"
            print(f"{what:34} {n_bytes / 1e6:9.1f} MB {times} {rate}")

        done: list[Progress] = []
        first = measured(lambda: done.append(source.back_up()))
        n_bytes = done[0].read_bytes
        copied = measured(lambda: copy(source.folder / "views", top / "copy"))
        report("cp -r, and sync", sum(path.stat().st_size for path in (top / "copy").rglob("*")), copied)
        report("backup", n_bytes, first)
        print(f"{'  sent':34} {done[0].sent_bytes / 1e6:9.1f} MB")
        report("backup, nothing new", n_bytes, measured(lambda: done.append(source.back_up())))
        assert done[1].sent_bytes == 0
        source.write(HOUR_STEPS)
        again = measured(lambda: done.append(source.back_up()))
        report("backup after one more hour", done[2].read_bytes, again)
        share = 100 * (done[2].read_bytes - done[2].kept_bytes) / done[2].read_bytes
        print(f"{'  sent':34} {done[2].sent_bytes / 1e6:9.1f} MB, {share:.0f} % of keys and values are new")
        restored: list[int] = []
        report("restore", done[2].read_bytes, measured(lambda: restored.append(source.restore(top / "restored"))))
        for what, under in (("alone", None), ("while a backup is written", source.back_up)):
            took = source.latencies(under, 20)
            median_ms, longest_ms = 1e3 * statistics.median(took), 1e3 * max(took)
            print(f"query, {what:27} median {median_ms:.1f} ms, longest {longest_ms:.1f} ms")
        source.close()
        return done[2].read_bytes, restored[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="50 series × 1 hour")
    n_bytes, _ = bench(*((50, HOUR_STEPS) if parser.parse_args().small else (10_000, 8 * HOUR_STEPS)))
    print(f"checksum {n_bytes}")


if __name__ == "__main__":
    main()
