"""Is what a backup has what it says? From the existence of its objects to the samples in their chunks."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from common.errors import CorruptError
from common.labels import StringPool
from common.store import MAX_TIME_MS
from storage_node.backup.choosing import Backup
from storage_node.backup.manifest import OBJECTS, Manifest
from storage_node.backup.restoring import restore_partition
from storage_node.backup.target import Target
from storage_node.checkpoint import load
from storage_node.disk import RocksDisk
from storage_node.errors import ViewsDamaged
from storage_node.partition import PartitionState
from storage_node.reading import PartitionRead, read_rows
from storage_node.segments import Segments
from storage_node.windows import Window


def missing_objects(target: Target, backup: Backup) -> Iterator[str]:
    """One line for each object that is not there, or has another size than it should. Raises TargetError."""
    there = {one.name.rpartition("/")[2]: one.size_bytes for one in target.entries(OBJECTS)}
    for partition, manifest in backup.manifests.items():
        for one in manifest.objects:
            if one.name not in there:
                yield f"partition {partition}: object {one.name} is missing"
            elif there[one.name] != one.stored_bytes:
                sizes = f"{there[one.name]} bytes instead of {one.stored_bytes}"
                yield f"partition {partition}: object {one.name} has {sizes}"


def verify_partition(
    target: Target, manifest: Manifest, scratch: Path, progress: Callable[[int], object] = lambda n_bytes: None
) -> None:
    """Restore a partition into a folder beside and count the digest of its samples anew, from their chunks.

    Raises:
        BackupCorrupt: it is not what its manifest says. CorruptError: its values break their format. TargetError.
    """
    with tempfile.TemporaryDirectory(dir=scratch, prefix="verify-") as folder:
        disk = RocksDisk(Path(folder))
        try:
            restore_partition(target, manifest, disk, progress=progress)
            state = PartitionState(manifest.partition, StringPool(), disk, Segments(disk))
            load(state)
            _check_chunks(state)
        except ViewsDamaged as error:
            raise CorruptError(str(error), partition=manifest.partition) from None
        finally:
            disk.close()


def _check_chunks(state: PartitionState) -> None:
    """Raises CorruptError if a window's samples have another digest than its record."""
    snos = np.arange(len(state.series), dtype=np.uint32)
    for number, window in sorted(state.windows.items()):
        counted = Window()
        segments = [(number, segment) for segment in window.segments]
        plan = state.plan_segments(snos, state.horizon_ms, MAX_TIME_MS, segments, with_head=False)
        samples = read_rows([PartitionRead(plan, state.segments)], len(snos))
        if len(samples[1]):
            for lanes, n in zip(*state.digests(snos, *samples)[1:], strict=True):
                counted.add(int(lanes[0]), int(lanes[1]), int(n))
        if counted.digest() != window.digest() or counted.n_samples != window.n_samples:
            raise CorruptError(
                f"the chunks of window {number} have {counted.n_samples} samples of digest {counted.digest()}, its"
                f" record says {window.n_samples} of {window.digest()}",
                partition=state.partition,
            )
