"""Durations as people write them: 400d, 12h30m, 500ms."""

from __future__ import annotations

import re

UNITS_MS = {
    "y": 365 * 86_400_000,
    "w": 7 * 86_400_000,
    "d": 86_400_000,
    "h": 3_600_000,
    "m": 60_000,
    "s": 1000,
    "ms": 1,
}
MAX_DURATION_MS = 1000 * UNITS_MS["y"]


def duration_ms(text: str) -> int | None:
    """A duration above 0 and at most 1000y, in ms; None if the text is none.

    A bare number is none either: nobody knows its unit.
    """
    if not re.fullmatch(r"(\d{1,18}(y|w|d|h|ms|m|s))+", text, re.ASCII):
        return None
    parts = re.findall(r"(\d+)(ms|[ywdhms])", text)
    found = sum(int(number) * UNITS_MS[unit] for number, unit in parts)
    return found if 0 < found <= MAX_DURATION_MS else None
