"""`tabor restore`: a data folder from a backup, and from a log on top of it.

    restore.json ──► views.restore ──► a log that begins where the views end ──► views ──► (no restore.json)

Killed at any step, the same command goes on: partitions that are whole are kept. Nothing else opens a folder that
has restore.json.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.errors import StartupError
from common.log.base import Log
from common.log.local_disk import DiskError as LogDiskError
from common.log.local_disk import LogDisk
from common.log.url import LOCAL_FOLDER, identity, open_log
from storage_node import keys
from storage_node.backup.applying import apply_log
from storage_node.backup.choosing import Backup, choose
from storage_node.backup.restoring import is_restored, restore_partition
from storage_node.backup.target import Target, open_target
from storage_node.config import NodeConfig
from storage_node.disk import Batch, RocksDisk
from storage_node.views import FORMAT_VERSION, FolderLock, Views, exchange, views_folder
from tabor import kernels
from tabor.folder import RESTORE_MARK, DataFolder
from tabor.progress import Bar, say
from tabor.stopping import stoppable
from tabor.values import format_size, format_time

_RESTORED = "views.restore"
_OURS = {LOCAL_FOLDER, "views", "views.ready", "views.old", "views.rebuild", _RESTORED}
_LOCKS = {"lock", "views.lock", f"{RESTORE_MARK}.new"}


@stoppable("the same command goes on with it")
def run_restore(
    where: str,
    data_dir: Path,
    *,
    run: str | None,
    log: str,
    log_from: str | None,
    until_ms: int | None,
    force: bool,
) -> None:
    """Restore into a data folder for `tabor run`. Raises TaborError, Stopped."""
    if until_ms is not None and log_from is None:
        raise StartupError("--until needs the log to read on from the backup to that time; give --log-from")
    if log_from is not None and log != "local":
        raise StartupError("with --log-from the restored folder gets a log of its own; leave --log out")
    target = open_target(where, create=False)
    kernels.ensure()
    with DataFolder(data_dir, restoring=True), FolderLock(data_dir):
        # The newest backup may be another one by now than the one that was begun with.
        backup = choose(target, run or _begun(data_dir).get("backup"))
        about = {"target": where, "backup": backup.run, "log": log, "log_from": log_from, "until_ms": until_ms}
        kept_log = _prepare(data_dir, backup, about, force=force)
        config = NodeConfig("local", data_dir, identity(log), next(iter(backup.manifests.values())).retention_ms)
        if not (data_dir / "views.ready").exists():
            _restore_views(target, backup, data_dir / _RESTORED, config)
            offsets = _read_on(data_dir, backup, config, log_from, until_ms)
            if log == "local" and not kept_log:
                _begin_log(data_dir / LOCAL_FOLDER, offsets)
            (data_dir / _RESTORED).rename(data_dir / "views.ready")
        exchange(data_dir)
        (data_dir / RESTORE_MARK).unlink()
    say(f"restored backup {backup.run} into {data_dir}; start it with `tabor run --data-dir {data_dir}`")


def _prepare(data_dir: Path, backup: Backup, about: dict[str, Any], *, force: bool) -> bool:
    """Mark the folder as half restored; says whether the folder's own log goes on from the backup and stays."""
    if found := _begun(data_dir):
        kept_log = bool(found.pop("kept_log"))
        if found == about:
            say(f"going on with the restore of {backup.run}")
            return kept_log
        raise StartupError(
            f"{data_dir} is half restored in another way: go on with `{_command(data_dir, found)}`, "
            "or remove the folder"
        )
    there = {path.name for path in data_dir.iterdir()} - _LOCKS
    if there and not force:
        raise StartupError(f"{data_dir} is not empty; choose another folder, or --force to replace its views")
    if there and not there & _OURS:
        raise StartupError(f"{data_dir} has files, and none of Tabor's: it is no data folder; choose another")
    if about["log_from"] is not None and LOCAL_FOLDER in there:
        raise StartupError(f"{data_dir} has a log of its own; with --log-from choose another folder")
    if about["log_from"] is not None:
        # A mistyped log leaves no folder behind that is half restored.
        with closing(_open_log_from(about["log_from"])) as source:
            _check_goes_on(source, backup, about["log_from"])
    views_folder(data_dir)
    kept_log = _fitting_log(data_dir, backup, about["log"])
    shutil.rmtree(data_dir / _RESTORED, ignore_errors=True)
    staged = data_dir / f"{RESTORE_MARK}.new"
    with staged.open("w") as file:
        file.write(json.dumps({**about, "kept_log": kept_log}))
        file.flush()
        os.fsync(file.fileno())
    staged.rename(data_dir / RESTORE_MARK)
    return kept_log


def _begun(data_dir: Path) -> dict[str, Any]:
    """What a restore that was not finished was to do; empty if there is none."""
    mark = data_dir / RESTORE_MARK
    if not mark.exists():
        return {}
    found: dict[str, Any] = json.loads(mark.read_text())
    return found


def _command(data_dir: Path, about: dict[str, Any]) -> str:
    """What was given to begin a restore, to be given again."""
    words = ["tabor", "restore", about["target"], "--data-dir", str(data_dir), "--backup", about["backup"]]
    if about["log"] != "local":
        words += ["--log", about["log"]]
    if about["log_from"] is not None:
        words += ["--log-from", about["log_from"]]
    if about["until_ms"] is not None:
        words += ["--until", format_time(about["until_ms"])]
    return shlex.join(words)


def _fitting_log(data_dir: Path, backup: Backup, log: str) -> bool:
    """Whether there is a log already; raises StartupError if it does not go on where the backup ends."""
    if log == "local":
        if not (data_dir / LOCAL_FOLDER / "CURRENT").exists():
            return False
        opened = open_log("local", data_dir=data_dir, partitions=None, create=False)
    else:
        opened = open_log(log, data_dir=None, partitions=None, create=False)
    try:
        _check_goes_on(opened, backup, "the folder's log" if log == "local" else "the log")
    finally:
        opened.close()
    return True


def _check_goes_on(log: Log, backup: Backup, what: str) -> None:
    """Raises StartupError if a log does not have what comes behind the backup."""
    if log.partitions != backup.partitions:
        raise StartupError(f"{what} has {log.partitions} partitions, the backup {backup.partitions}")
    for partition, manifest in backup.manifests.items():
        start, end = log.bounds(partition)
        if not start <= manifest.next_offset <= end:
            raise StartupError(
                f"{what} has offsets {start} to {end} of partition {partition}, the backup ends at "
                f"{manifest.next_offset}: it is another log, or has lost what lies between; move it away "
                "to restore without it"
            )


def _restore_views(target: Target, backup: Backup, folder: Path, config: NodeConfig) -> None:
    total = sum(manifest.size_bytes for manifest in backup.manifests.values())
    done, begun_s = 0, time.monotonic()
    disk = RocksDisk(folder)
    try:
        with Bar("restoring", total=total) as bar:

            def show(n_bytes: int) -> None:
                nonlocal done
                done += n_bytes
                rate = done / max(time.monotonic() - begun_s, 1e-3)
                bar.update(done, note=f"{format_size(done)} at {format_size(rate)}/s")

            for manifest in backup.manifests.values():
                if is_restored(disk, manifest):
                    show(manifest.size_bytes)
                else:
                    restore_partition(target, manifest, disk, progress=show)
        batch = Batch()
        meta = {
            "format": FORMAT_VERSION,
            "partitions": backup.partitions,
            "log": config.log_identity,
            "retention_ms": config.retention_ms,
            "shared": False,
        }
        batch.put(keys.NODE_META, json.dumps(meta).encode())
        disk.write(batch)
        disk.flush()
    finally:
        disk.close()


def _read_on(
    data_dir: Path, backup: Backup, config: NodeConfig, log_from: str | None, until_ms: int | None
) -> list[int]:
    """Apply a log on top of what was restored; returns the next offset of every partition."""
    if log_from is None:
        return [backup.manifests[partition].next_offset for partition in range(backup.partitions)]
    source = _open_log_from(log_from)
    try:
        _check_goes_on(source, backup, log_from)
        views = Views(data_dir / _RESTORED, backup.partitions, replace(config, log_identity=""))
        try:
            with Bar("reading on") as bar:
                n_samples = apply_log(
                    source, views, until_ms, lambda done, total: bar.update(done, total, "records")
                )
            views.save(time.monotonic())
            say(f"{n_samples:,} samples of the log came on top")
            return [shard.state.saved_offset for shard in views.shards.values()]
        finally:
            views.close()
    finally:
        source.close()


def _open_log_from(log_from: str) -> Log:
    if "://" in log_from:
        return open_log(log_from, data_dir=None, partitions=None, create=False, writes=False)
    return open_log("local", data_dir=Path(log_from), partitions=None, create=False, read_only=True)


def _begin_log(folder: Path, offsets: list[int]) -> None:
    """A log without records that goes on behind the views; a half-made one of an earlier attempt is replaced."""
    shutil.rmtree(folder, ignore_errors=True)
    log = LogDisk(folder, len(offsets), create=True)
    try:
        log.begin_at(offsets, time.time_ns() // 1_000_000)
    except LogDiskError as error:
        raise StartupError(f"the log in {folder} cannot be made: {error}") from None
    finally:
        log.close()
