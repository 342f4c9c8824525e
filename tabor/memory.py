"""How this process asks the C library for memory."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8
_ARENAS = 2


def share_arenas() -> None:
    """Have all threads share two of glibc's arenas instead of one each, which keep what they have freed.

    Measured with 500,000 series: 40 B less RSS a series, at the same CPU. Other C libraries have no arenas.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)
