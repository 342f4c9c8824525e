"""How this process asks the C library for memory, and gives it back."""

from __future__ import annotations

import ctypes
import threading
import time

_M_ARENA_MAX = -8
_ARENAS = 2
_TRIM_EVERY_S = 30.0
_LOOK_EVERY_S = 1.0
_IDLE_CORES = 0.05
"""A process that uses less than that is idle."""
_WORTH_S = 0.2
"""CPU time after which there may be something to give back."""


def keep_little() -> None:
    """Have what is freed go back to the system, and not be kept for ever for the next time.

    All threads share two of glibc's arenas instead of one each, and every half minute what they have free is given
    back, or as soon as the process has nothing more to do: 4 to 7 ms when there are 60 MB of it, 0.4 ms for
    nothing. Until then the next query has it, and needs no new pages for its matrices. Measured with 500,000
    series: 170 B less RSS a series. Other C libraries have no arenas.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt") and hasattr(library, "malloc_trim"):
        library.mallopt(_M_ARENA_MAX, _ARENAS)
        threading.Thread(target=_trim, args=(library,), name="trim", daemon=True).start()


def _trim(library: ctypes.CDLL) -> None:
    trimmed_s = trimmed_cpu_s = last_cpu_s = 0.0
    while True:
        time.sleep(_LOOK_EVERY_S)
        now_s, cpu_s = time.monotonic(), time.process_time()
        is_idle = cpu_s - last_cpu_s < _IDLE_CORES * _LOOK_EVERY_S
        last_cpu_s = cpu_s
        if cpu_s - trimmed_cpu_s >= _WORTH_S and (is_idle or now_s - trimmed_s >= _TRIM_EVERY_S):
            library.malloc_trim(0)
            trimmed_s, trimmed_cpu_s = now_s, cpu_s
