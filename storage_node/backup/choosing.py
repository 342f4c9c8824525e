"""Which backups there are, and which one is meant."""

from __future__ import annotations

from dataclasses import dataclass

from common.errors import StartupError
from storage_node.backup.errors import BackupCorrupt
from storage_node.backup.manifest import Manifest, is_run, read_manifest, runs_of
from storage_node.backup.target import Target


@dataclass(frozen=True, slots=True)
class Backup:
    """All manifests of one backup that there are, by partition. partitions: that it has if it is whole."""

    run: str
    partitions: int
    manifests: dict[int, Manifest]

    @property
    def is_whole(self) -> bool:
        return len(self.manifests) == self.partitions

    @property
    def missing(self) -> list[int]:
        return [partition for partition in range(self.partitions) if partition not in self.manifests]


def read_backup(target: Target, run: str, partitions: set[int]) -> Backup:
    """The manifests of a backup. Raises BackupCorrupt, TargetError."""
    found: dict[int, Manifest] = {}
    for partition in sorted(partitions):
        manifest = read_manifest(target, run, partition)
        if manifest is not None:
            found[partition] = manifest
    # All of one backup agree, or it is of two logs that share a target by mistake.
    about = {(one.partitions, one.log, one.format) for one in found.values()}
    if len(about) > 1:
        raise BackupCorrupt(
            f"backup {run} in {target.where} is of more than one log; give each a target of its own"
        )
    n_partitions = next(iter(about))[0] if about else 0
    return Backup(run, n_partitions, found)


def all_backups(target: Target) -> list[Backup]:
    """Oldest first. Raises BackupCorrupt, TargetError."""
    return [read_backup(target, run, partitions) for run, partitions in runs_of(target).items()]


def choose(target: Target, run: str | None) -> Backup:
    """The backup of this name, or the newest one that is whole.

    Raises:
        StartupError: there is no such backup, or it is not whole. BackupCorrupt, TargetError.
    """
    runs = runs_of(target)
    if run is not None:
        if not is_run(run) or run not in runs:
            some = ", ".join(list(runs)[-3:]) or "none"
            raise StartupError(f"there is no backup {run!r} in {target.where}; the newest are {some}")
        found = read_backup(target, run, runs[run])
        if not found.is_whole:
            missing = ", ".join(map(str, found.missing[:5]))
            raise StartupError(f"backup {run} in {target.where} is not whole: it lacks partition {missing}")
        return found
    for name in reversed(runs):
        found = read_backup(target, name, runs[name])
        if found.is_whole:
            return found
    raise StartupError(f"there is no whole backup in {target.where}" + (" yet" if runs else ""))


def newest_of(target: Target, partition: int) -> Manifest | None:
    """The newest manifest of a partition, of whatever backup. Raises BackupCorrupt, TargetError."""
    for run, partitions in reversed(runs_of(target).items()):
        if partition in partitions:
            return read_manifest(target, run, partition)
    return None
