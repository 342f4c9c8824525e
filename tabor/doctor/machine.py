"""Processor, memory, open files, clock, compiled kernels."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
from collections.abc import Iterator
from pathlib import Path

from common.kernels import jit
from tabor import kernels
from tabor.doctor.findings import Finding, graded, ok, problem, warning
from tabor.server_metrics import memory_limit_bytes

LEAST_FILES, GOOD_FILES = 1024, 8192
"""RocksDB keeps up to 512 files of each database open, and every client is a connection."""
LEAST_MEMORY_BYTES, GOOD_MEMORY_BYTES = 512 << 20, 2 << 30
_TIME_ERROR = 5
_TIMEX_BYTES = 512
"""More than any kernel's `struct timex`."""


def check() -> Iterator[Finding]:
    """What this machine gives."""
    yield ok("python", f"{platform.python_version()} on {platform.machine()}")
    n_cores = cores()
    advice = "give it two cores: one writes and reads while the other merges"
    yield graded("cpu", f"{n_cores:g} cores", advice, bad=n_cores < 0.5, poor=n_cores < 2)
    memory = memory_limit_bytes()
    advice = "some 250 MB are used at the least, and 0.9 kB a series and replica (docs/operations.md)"
    text = f"{memory / 2**30:.1f} GiB"
    yield graded("memory", text, advice, bad=memory < LEAST_MEMORY_BYTES, poor=memory < GOOD_MEMORY_BYTES)
    yield _open_files()
    yield _clock()
    yield _kernels()


def cores() -> float:
    """Cores that this process may use: those of its affinity, or what its control group allows."""
    n_cores = float(len(os.sched_getaffinity(0)))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return n_cores
    return n_cores if quota == "max" else min(n_cores, int(quota) / int(period))


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shown = "any number" if soft == resource.RLIM_INFINITY else f"{soft:,}"
    n_files = 1 << 60 if soft == resource.RLIM_INFINITY else soft
    advice = f"LimitNOFILE=65536 in the systemd unit, or `ulimit -n` (at most {hard:,} for this user)"
    text = f"{shown} may be open"
    return graded("open files", text, advice, bad=n_files < LEAST_FILES, poor=n_files < GOOD_FILES)


def _clock() -> Finding:
    """Whether the kernel says that something keeps its clock right; asking changes nothing."""
    adjtimex = getattr(ctypes.CDLL(None), "adjtimex", None)
    state = -1 if adjtimex is None else int(adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)))
    if state < 0:
        return warning("clock", "the kernel does not say whether it is kept right", "see `timedatectl`")
    if state == _TIME_ERROR:
        return warning("clock", "nothing keeps it right", "run chrony or systemd-timesyncd on this machine")
    return ok("clock", "is kept right")


def _kernels() -> Finding:
    folder = jit.cache_folder()
    if kernels.compiled():
        return ok("kernels", f"compiled, in {folder}")
    at = folder
    while not at.exists():
        at = at.parent
    if not os.access(at, os.W_OK):
        advice = "make it writable for this user, or set XDG_CACHE_HOME to a folder that is"
        return problem("kernels", f"not compiled, and {folder} cannot be written", advice)
    return warning("kernels", "not compiled yet", "nothing: the first start does it, in one to two minutes")
