"""Compiles all kernels once per machine, with progress, and loads them from the cache afterwards."""

from __future__ import annotations

import fcntl
import importlib
import os
import pkgutil
import tempfile
import threading
import time
from collections.abc import Callable

import common.kernels
from common.errors import StartupError
from common.kernels import jit
from tabor.progress import Bar, say


def import_all() -> list[jit.Kernel]:
    """Import every module of kernels and return what they declare."""
    for module in pkgutil.iter_modules(common.kernels.__path__):
        importlib.import_module(f"common.kernels.{module.name}")
    return jit.all_kernels()


def compiled() -> bool:
    """Whether the cache holds every kernel of these sources."""
    return jit.disabled() or (jit.cache_folder() / "complete").exists()


def compile_all(report: Callable[[int, int], None]) -> float:
    """Compile into the cache what is not there yet, on all cores; returns the seconds it took.

    report(done, total) is called after each kernel. What an interrupted run compiled is kept.
    """
    # Imported here: hardly any start has something to compile.
    import multiprocessing

    start = time.monotonic()
    kernels = import_all()
    report(0, len(kernels))
    workers = min(os.cpu_count() or 1, 8)
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for done, _ in enumerate(pool.imap_unordered(_compile, range(len(kernels))), start=1):
            report(done, len(kernels))
    (jit.cache_folder() / "complete").touch()
    return time.monotonic() - start


def ensure() -> None:
    """Compile what is missing, telling the user; at once if nothing is.

    Raises:
        StartupError: the folder for compiled kernels cannot be written.
    """
    if jit.disabled():
        return
    _check_cache_folder()
    if compiled():
        return
    with (jit.cache_folder() / "lock").open("a") as lock:
        # Of several that start at once, one compiles and the others wait; the lock goes with its process.
        fcntl.flock(lock, fcntl.LOCK_EX)
        _compile_missing()


def _compile_missing() -> None:
    if compiled():
        return
    say("compiling the kernels for this machine, once; takes a minute or two")
    with Bar("compiling kernels") as bar:
        seconds = compile_all(bar.update)
    say(f"compiled in {seconds:.0f} s, kept in {jit.cache_folder()}")


def _check_cache_folder() -> None:
    try:
        folder = jit.cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        # numba wants to write there even if nothing is missing.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError) as error:  # RuntimeError: this user has no home
        reason = error.strerror if isinstance(error, OSError) else "this user has no home folder"
        where = f" {error.filename}" if isinstance(error, OSError) and error.filename else ""
        raise StartupError(
            f"the compiled kernels cannot be kept{where and ' in'}{where}: {reason}; "
            "set TABOR_KERNEL_CACHE to a folder that this user can write"
        ) from None


_SELDOM = (
    "attached",
    "deletion",
    "histogram_",
    "native_",
    "otlp",
    "prometheus_chunk",
    "remote_read",
    "remote_write_v2",
)
"""How the names of modules begin whose kernels most servers never need."""


def preload_in_background() -> None:
    """Load what writes and queries of floats need from the cache, so that no request has to wait for it.

    Of the modules that this process has imported, which are fewer in a tier of its own. The first request with
    native histograms, OTLP or deletions waits 10 to 40 ms for each kernel, instead of every start for all of them.
    """
    seldom = tuple(f"common.kernels.{name}" for name in _SELDOM)
    usual = [kernel for kernel in jit.all_kernels() if not kernel.name.startswith(seldom)]

    def load() -> None:
        for kernel in usual:
            kernel.compile()

    threading.Thread(target=load, name="preload", daemon=True).start()


def _compile(index: int) -> None:
    import_all()[index].compile()


if __name__ == "__main__":
    ensure()
