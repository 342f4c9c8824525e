"""Parts of a `prometheus.WriteRequest`, for what other formats are translated into."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from common.labels import uvarint
from common.protobuf import delimited

PIECE_SAMPLES = 20_000
"""Samples of one message, where what is translated is cut into several."""
SPELLED_OUT = 8
"""How many times `max_body_bytes` a request may have with the labels of each series, of a histogram's buckets too,
spelled out."""
TYPES = ("unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset")
"""Types of metrics, each at the number that `MetricMetadata` has for it."""


def labels_field(labels: Mapping[str, str]) -> bytes:
    """The labels of a TimeSeries or an Exemplar, sorted; one without a value is no label."""
    # The order of texts is that of their UTF-8 bytes.
    return b"".join(label_field(name, labels[name]) for name in sorted(labels) if labels[name])


def label_field(name: str, text: str) -> bytes:
    """One of the labels of a TimeSeries or an Exemplar."""
    return delimited(1, delimited(1, name.encode()) + delimited(2, text.encode()))


def sample_field(value: float, time_ms: int) -> bytes:
    """A Sample of a TimeSeries."""
    return delimited(2, _stamp(1, value, 2, time_ms))


def exemplar_field(labels: Mapping[str, str], value: float, time_ms: int) -> bytes:
    """An Exemplar of a TimeSeries."""
    return delimited(3, labels_field(labels) + _stamp(2, value, 3, time_ms))


def histogram_field(histogram: bytes) -> bytes:
    """A Histogram of a TimeSeries."""
    return delimited(4, histogram)


def series_field(content: bytes) -> bytes:
    """A TimeSeries of a request, from its fields."""
    return delimited(1, content)


def metadata_field(kind: str, family: str, text: str, unit: str) -> bytes:
    """A MetricMetadata of a request; kind: one of `TYPES`, others are unknown."""
    number = TYPES.index(kind) if kind in TYPES else 0
    texts = ((2, family), (4, text), (5, unit))
    return delimited(3, b"\x08" + bytes((number,)) + b"".join(delimited(n, each.encode()) for n, each in texts))


def _stamp(value_number: int, value: float, time_number: int, time_ms: int) -> bytes:
    out = uvarint(value_number << 3 | 1) + struct.pack("<d", value)
    return out + uvarint(time_number << 3) + uvarint(time_ms % (1 << 64))
