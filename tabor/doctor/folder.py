"""The data folder and the disk below it."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from common.errors import StartupError
from common.log.frozen import FrozenLog
from tabor.doctor.findings import Finding, graded, ok, problem, warning

LEAST_FREE, GOOD_FREE = 0.02, 0.1
LEAST_FREE_BYTES = 1 << 30
SLOW_SYNC_S, POOR_SYNC_S = 0.2, 0.02
_SYNCS = 20
_SYNC_BYTES = 4096
_FAR = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p", "ceph", "glusterfs", "fuse.glusterfs"}
_FLEETING = {"tmpfs", "ramfs"}


def check(data_dir: Path, *, has_log: bool) -> Iterator[Finding]:
    """What is at a data folder, or will be. has_log: whether the log is in it."""
    at = data_dir.absolute()
    while not at.exists():
        at = at.parent
    if not os.access(at, os.W_OK | os.X_OK):
        yield problem("data folder", f"{at} cannot be written", "change its owner, or choose another --data-dir")
        return
    yield _space(at)
    yield _file_system(at)
    yield _sync(at)
    if at != data_dir.absolute():
        yield ok("data folder", f"{data_dir} will be made")
        return
    holder = held_by(data_dir / "lock")
    yield ok("data folder", f"{data_dir} is free" if holder is None else f"{data_dir} is used by process {holder}")
    if has_log and (data_dir / "log").exists():
        yield _log(data_dir / "log")


def _space(at: Path) -> Finding:
    disk = os.statvfs(at)
    free, size = disk.f_bavail * disk.f_frsize, max(1, disk.f_blocks * disk.f_frsize)
    text = f"{free / 2**30:,.1f} of {size / 2**30:,.1f} GiB are free"
    bad = free / size < LEAST_FREE or free < LEAST_FREE_BYTES
    advice = "make room: when it is full, writes are refused (docs/runbooks/TaborDiskNearlyFull.md)"
    return graded("disk space", text, advice, bad=bad, poor=free / size < GOOD_FREE)


def _file_system(at: Path) -> Finding:
    kind = file_system(at, Path("/proc/self/mounts").read_text())
    if kind in _FLEETING:
        return problem("file system", f"{kind}: gone after a restart of the machine", "choose another --data-dir")
    if kind in _FAR:
        advice = "choose a disk of this machine: locks and fsync over a network are slow, and not always true"
        return warning("file system", kind, advice)
    return ok("file system", kind or "unknown")


def file_system(at: Path, mounts: str) -> str:
    """Type of the file system that a folder is on, by the lines of /proc/mounts."""
    best, kind = "", ""
    for line in mounts.splitlines():
        _, where, found, *_ = line.split()
        where = where.encode().decode("unicode_escape")
        inside = where == "/" or str(at) == where or str(at).startswith(where + "/")
        if inside and len(where) >= len(best):
            best, kind = where, found
    return kind


def _sync(at: Path) -> Finding:
    """How long a small synced write takes, in a file that has no name and leaves nothing behind."""
    try:
        fd = os.open(at, os.O_TMPFILE | os.O_RDWR, 0o600)
    except OSError as error:
        return warning("fsync", f"not measured: {error.strerror}", "nothing; this file system cannot do it unseen")
    times = []
    try:
        for _ in range(_SYNCS):
            os.write(fd, bytes(_SYNC_BYTES))
            started = time.perf_counter()
            os.fsync(fd)
            times.append(time.perf_counter() - started)
    finally:
        os.close(fd)
    middle, worst = statistics.median(times), max(times)
    text = f"{1000 * middle:.1f} ms in the middle, {1000 * worst:.1f} ms at worst, of {_SYNCS}"
    advice = "each group of writes to a local log waits for one: use a disk with flash memory, for nothing else"
    return graded("fsync", text, advice, bad=middle > SLOW_SYNC_S, poor=middle > POOR_SYNC_S)


def held_by(lock: Path) -> int | None:
    """The process that holds a lock file, by /proc/locks: the file itself is not touched."""
    try:
        status = lock.stat()
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    where = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in lines:
        fields = line.split()
        if len(fields) > 5 and fields[1] == "FLOCK" and fields[5] == where:
            return int(fields[4])
    return None


def _log(path: Path) -> Finding:
    try:
        with closing(FrozenLog(path)) as log:
            return ok("log", f"{log.partitions} partitions, in a format that this version reads")
    except (StartupError, json.JSONDecodeError) as error:
        return problem("log", str(error), "run the version that wrote it, or restore a backup")
