"""Deletions in one partition: applying tombstones, reading masked segments, carrying out.

    python -m bench.bench_deletion [--small]

10,000 counters with two decimals × 1,440 samples, six checkpoints. CPU time of the process, in ms; reads are warm.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Lock

import numpy as np

from common.attachments import NO_REF, Attachments, Kind
from common.labels import StringPool, canonical_labels, series_id
from common.record import NOTHING
from common.store import MAX_TIME_MS, MIN_TIME_MS, Matcher, MatchOp
from common.tombstones import Tombstone
from storage_node.checkpoint import checkpoint
from storage_node.disk import RocksDisk
from storage_node.partition import PartitionState
from storage_node.purging import purge
from storage_node.reading import PartitionRead, read_rows
from storage_node.segments import Segments

T0 = 1_790_006_400_000
STEP_MS = 15_000
EVERY = Matcher(MatchOp.EQUAL, "__name__", "m")


class Deleting:
    """A partition full of samples."""

    def __init__(self, folder: Path, n_series: int, n_steps: int) -> None:
        disk = RocksDisk(folder)
        self.state = PartitionState(0, StringPool(), disk, Segments(disk))
        sets = [canonical_labels({"__name__": "m", "i": str(i), "job": str(i % 10)}) for i in range(n_series)]
        declared = replace(
            NOTHING,
            declared_refs=np.arange(n_series, dtype=np.uint32),
            declared_ids=np.frombuffer(b"".join(map(series_id, sets)), dtype=np.uint8).reshape(-1, 16),
            label_offsets=np.cumsum([0, *map(len, sets)]).astype(np.int64),
            label_bytes=np.frombuffer(b"".join(sets), dtype=np.uint8),
        )
        self.state.apply(0, declared)
        random = np.random.default_rng(1)
        refs, values = declared.declared_refs, np.zeros(n_series)
        for step in range(n_steps):
            values = values + np.round(random.random(n_series) * 10, 2)
            times = np.full(n_series, T0 + step * STEP_MS)
            batch = replace(NOTHING, refs=refs, timestamps=times, values=values)
            self.state.apply(self.state.next_offset, batch)
            if (step + 1) % (n_steps // 6) == 0:
                checkpoint(self.state)

    def read(self) -> int:
        """Number of samples in everything."""
        snos = np.arange(len(self.state.series), dtype=np.uint32)
        plan = self.state.plan(snos, MIN_TIME_MS, MAX_TIME_MS)
        return len(read_rows([PartitionRead(plan, self.state.segments)], len(snos))[1])

    def delete(self, matcher: Matcher, low: int = MIN_TIME_MS, high: int = MAX_TIME_MS) -> int:
        """Number of samples deleted."""
        before = self.state.outcomes.deleted
        row = Kind.TOMBSTONE, NO_REF, 0, Tombstone((matcher,), low, high).encode()
        self.state.apply(self.state.next_offset, replace(NOTHING, attached=Attachments.of([row])))
        return self.state.outcomes.deleted - before

    def carry_out(self) -> int:
        """Number of windows written anew."""
        checkpoint(self.state)
        n_windows = 0
        while purge(self.state, Lock()):
            n_windows += 1
        return n_windows


def report(what: str, act: Callable[[], int]) -> int:
    start = time.process_time()
    count = act()
    print(f"{what:40} {count:12,} {1000 * (time.process_time() - start):10.1f} ms", flush=True)
    return count


def bench(n_series: int, n_steps: int) -> int:
    """Returns the number of samples that are left before the last deletion."""
    with tempfile.TemporaryDirectory(prefix="tabor-bench-") as folder:
        partition = Deleting(Path(folder) / "views", n_series, n_steps)
        partition.read()
        report("read, samples", partition.read)
        report("delete one series, samples", lambda: partition.delete(Matcher(MatchOp.EQUAL, "i", "7")))
        report("delete a tenth of the series", lambda: partition.delete(Matcher(MatchOp.EQUAL, "job", "3")))
        a_sixth = T0 + n_steps * STEP_MS // 6 - 1
        report("delete a sixth of the time", lambda: partition.delete(EVERY, T0, a_sixth))
        partition.read()
        report("read with masks, samples", partition.read)
        report("carry out, windows", partition.carry_out)
        partition.read()
        left = report("read after that, samples", partition.read)
        report("delete all that is left", lambda: partition.delete(EVERY))
        return left


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="100 series × 60 samples")
    print(f"checksum {bench(*((100, 60) if parser.parse_args().small else (10_000, 1440)))}")


if __name__ == "__main__":
    main()
