"""Forgetting old backups, and objects that no backup has any more."""

from __future__ import annotations

from typing import NamedTuple

from storage_node.backup import turns
from storage_node.backup.manifest import OBJECTS, manifest_name, read_manifest, runs_of
from storage_node.backup.target import Target


class Pruned(NamedTuple):
    """forgotten: names of backups. freed: whether objects were looked through; not while a backup runs."""

    forgotten: list[str]
    objects: int
    size_bytes: int
    freed: bool


def prune(target: Target, keep: int) -> Pruned:
    """Keep the newest `keep` backups that are whole, and whatever is newer than the oldest of these.

    Objects that nothing refers to are deleted, unless somebody writes a backup, who might rely on them.
    Raises BackupCorrupt, TargetError.
    """
    assert keep >= 1
    with turns.pruning(target) as turn:
        runs = runs_of(target)
        whole = [run for run, found in runs.items() if len(found) == _partitions(target, run, found)]
        oldest = whole[-keep] if len(whole) >= keep else ""
        forgotten = [run for run in runs if run < oldest]
        for run in forgotten:
            for partition in sorted(runs[run]):
                target.delete(manifest_name(run, partition))
        # Of a target that shows no backup at all nothing is deleted: it may just not be all there.
        if not turn.is_alone or not runs:
            return Pruned(forgotten, 0, 0, False)
        used = set()
        for run, found in runs_of(target).items():
            for partition in found:
                manifest = read_manifest(target, run, partition)
                used |= {one.name for one in manifest.objects} if manifest else set()
        # A backup that began after we looked waits until we are done.
        unused = [one for one in target.entries(OBJECTS) if one.name.rpartition("/")[2] not in used]
        for entry in unused:
            turn.check()
            target.delete(entry.name)
        return Pruned(forgotten, len(unused), sum(entry.size_bytes for entry in unused), True)


def _partitions(target: Target, run: str, found: set[int]) -> int:
    manifest = read_manifest(target, run, min(found))
    return manifest.partitions if manifest else 0
