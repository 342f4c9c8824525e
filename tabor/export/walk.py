"""All samples of a selector, a slice of time after another, each no larger than the memory that it may take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.ipc

from common.errors import CallerError
from tabor.remote import Server, TooMuch

SLICE_SAMPLES = 500_000
"""Samples of one answer; a slice of time with more is asked for in parts."""
_FARTHEST_MS = 1 << 52
"""Times are sent as seconds, as floats, which are exact up to here."""
_DAY_MS = 86_400_000
_YEAR_2000_MS = 946_684_800_000


@dataclass(frozen=True, slots=True)
class Slice:
    """The samples up to end_ms and after the end of the slice before; end_ms is inclusive."""

    table: Any
    end_ms: int


def time_text(time_ms: int) -> str:
    """A time as Prometheus' API takes it."""
    seconds, rest = divmod(abs(time_ms), 1000)
    return f"{'-' if time_ms < 0 else ''}{seconds}.{rest:03d}"


def bounds(server: Server, match: str, start_ms: int | None, end_ms: int | None) -> tuple[int, int] | None:
    """A closed range of times that holds all samples wanted, at most a day too wide; None if there are none.

    Raises:
        CallerError: samples are too far from the present to be told apart by time.
    """

    def any_between(first_ms: int, last_ms: int) -> bool:
        asked = {"match[]": match, "start": time_text(first_ms), "end": time_text(last_ms), "limit": "1"}
        return first_ms <= last_ms and bool(server.data("/api/v1/series", asked))

    low = -_FARTHEST_MS if start_ms is None else start_ms
    high = _FARTHEST_MS if end_ms is None else end_ms
    if start_ms is None and end_ms is None:
        for side in (-2 * _FARTHEST_MS, _FARTHEST_MS + 1):
            if any_between(side, side + _FARTHEST_MS - 1):
                raise CallerError(
                    f"there are samples more than {_FARTHEST_MS} ms from 1970; give --start and --end"
                )
    if not any_between(low, high):
        return None
    # Nearly all samples lie between 2000 and tomorrow, so that it is worth asking for that first.
    tomorrow_ms = time.time_ns() // 1_000_000 + _DAY_MS
    if low < _YEAR_2000_MS <= high and not any_between(low, _YEAR_2000_MS - 1):
        low = _YEAR_2000_MS
    if low <= tomorrow_ms < high and not any_between(tomorrow_ms + 1, high):
        high = tomorrow_ms
    first, last = low, high
    while start_ms is None and last - first > _DAY_MS:
        middle = (first + last) // 2
        first, last = (first, middle) if any_between(low, middle) else (middle + 1, last)
    start = first
    first, last = start, high
    while end_ms is None and last - first > _DAY_MS:
        middle = (first + last) // 2
        first, last = (middle + 1, last) if any_between(middle + 1, high) else (first, middle)
    return start, last


def slices(server: Server, match: str, start_ms: int, end_ms: int) -> Iterator[Slice]:
    """The samples of a selector in the closed range, in order of slices; within one, series by series.

    Raises:
        TooMuch: one millisecond has more samples than the server's limit.
    """
    at_ms, width_ms = start_ms, end_ms - start_ms + 1
    while at_ms <= end_ms:
        last_ms = min(end_ms, at_ms + width_ms - 1)
        asked = {"match[]": match, "start": time_text(at_ms), "end": time_text(last_ms)}
        if last_ms > at_ms:
            asked["max_samples"] = str(SLICE_SAMPLES)
        else:
            # It cannot be halved any more: as many as the server gives.
            asked["max_samples"] = str(1 << 53)
        try:
            content = server.arrow("/api/v1/export", asked)
        except TooMuch:
            if last_ms == at_ms:
                raise
            width_ms = max(1, (last_ms - at_ms + 1) // 2)
            continue
        table = pa.ipc.open_stream(content).read_all()
        yield Slice(table, last_ms)
        at_ms = last_ms + 1
        if table.num_rows < SLICE_SAMPLES // 4:
            width_ms *= 2
