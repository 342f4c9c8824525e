"""Exponential histograms of OTLP as native histograms."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from common.labels import uvarint
from common.protobuf import delimited
from common.store import STALE_NAN_BITS
from ingest.errors import PointRefused

MAX_BUCKETS = 1 << 16
"""Of each sign, as sent. Histograms of what may be stored (64 KiB) have fewer."""
MIN_SCALE, MAX_SCALE = -4, 8
ZERO_THRESHOLD = 1e-128
"""OTLP's own is not used, since Prometheus does not use it."""

_MAX_GAP = 2
"""As many empty buckets are cheaper than another span."""
_MAX_COUNT = (1 << 63) - 1
_INDEX_LIMIT = 1 << 31


def native_histogram(point: Any, time_ms: int) -> bytes:
    """A `prometheus.Histogram` with integer counts for an ExponentialHistogramDataPoint that has a value.

    OTLP's bucket i is (base^i, base^(i+1)], that of Prometheus (base^(i-1), base^i]. Scales above 8 are brought
    down to 8, where 2^n buckets become one.

    Raises:
        PointRefused: it has no counterpart; says why.
    """
    if point.scale < MIN_SCALE:
        raise PointRefused(f"has scale {point.scale}; at least {MIN_SCALE} is possible")
    down = max(0, point.scale - MAX_SCALE)
    parts = [
        _number(1, point.count),
        _double(3, point.sum),
        _number(4, _zigzag(point.scale - down)),
        _double(5, ZERO_THRESHOLD),
        _number(6, point.zero_count),
    ]
    for buckets, spans_number in ((point.negative, 8), (point.positive, 11)):
        spans, counts = _layout(buckets, down)
        parts += [delimited(spans_number, _number(1, _zigzag(gap)) + _number(2, length)) for gap, length in spans]
        deltas = [_zigzag(count - before) for count, before in zip(counts, [0, *counts], strict=False)]
        # Mostly they are small, and then bytes already.
        small = max(deltas, default=0) < 128
        parts.append(delimited(spans_number + 1, bytes(deltas) if small else b"".join(map(uvarint, deltas))))
    return b"".join([*parts, _number(15, time_ms)])


def stale_histogram(time_ms: int) -> bytes:
    """A `prometheus.Histogram` that says that its series has ended."""
    return uvarint(3 << 3 | 1) + struct.pack("<Q", STALE_NAN_BITS) + _number(15, time_ms)


def _layout(buckets: Any, down: int) -> tuple[list[tuple[int, int]], list[int]]:
    """Spans as (gap, length), and the counts of their buckets."""
    if len(buckets.bucket_counts) > MAX_BUCKETS:
        raise PointRefused(f"has more than {MAX_BUCKETS} buckets")
    counts = np.array(buckets.bucket_counts, dtype=np.uint64)
    # Of places in 32 bits, more than 32 shifts leave nothing anyway.
    places = (buckets.offset + np.arange(len(counts)) >> min(down, 32)) + 1
    full = np.flatnonzero(counts)
    counts, places = counts[full], places[full]
    if sum(counts.tolist()) > _MAX_COUNT:
        raise PointRefused("has counts that do not fit 63 bits together")
    if down and len(places):
        starts = np.flatnonzero(np.diff(places, prepend=places[0] - 1))
        counts, places = np.add.reduceat(counts, starts), places[starts]
    if len(places) and places[-1] >= _INDEX_LIMIT:
        raise PointRefused("has bucket offsets that do not fit 32 bits")
    spans: list[tuple[int, int]] = []
    out: list[int] = []
    end = 0
    for place, count in zip(places.tolist(), counts.tolist(), strict=True):
        gap = place - end
        if spans and gap <= _MAX_GAP:
            out += [0] * gap
            spans[-1] = (spans[-1][0], spans[-1][1] + gap + 1)
        else:
            spans.append((gap, 1))
        out.append(count)
        end = place + 1
    return spans, out


def _number(number: int, value: int) -> bytes:
    return uvarint(number << 3) + uvarint(value)


def _double(number: int, value: float) -> bytes:
    return uvarint(number << 3 | 1) + struct.pack("<d", value)


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else -(value << 1) - 1
