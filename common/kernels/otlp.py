"""How many messages an OTLP request has, known before any of them becomes an object.

An empty message takes two bytes of a request and up to 134 bytes of memory once it is parsed (measured with
protobuf 7.36, upb), so that the size of a body says little about the memory it will take. The messages are those
of `opentelemetry/proto/collector/metrics/v1/metrics_service.proto` and what it imports; only nesting matters here.
"""

from __future__ import annotations

import numpy as np

from common.kernels.jit import kernel
from common.kernels.protobuf import get_varint, skip

MALFORMED = -1
TOO_DEEP = -2

MAX_DEPTH = 100
"""As deep as protobuf's own parsers go."""

NESTING: tuple[tuple[str, dict[int, str]], ...] = (
    ("ExportMetricsServiceRequest", {1: "ResourceMetrics"}),
    ("ResourceMetrics", {1: "Resource", 2: "ScopeMetrics"}),
    ("Resource", {1: "KeyValue", 3: "EntityRef"}),
    ("ScopeMetrics", {1: "InstrumentationScope", 2: "Metric"}),
    ("InstrumentationScope", {3: "KeyValue"}),
    (
        "Metric",
        {5: "Gauge", 7: "Sum", 9: "Histogram", 10: "ExponentialHistogram", 11: "Summary", 12: "KeyValue"},
    ),
    ("Gauge", {1: "NumberDataPoint"}),
    ("Sum", {1: "NumberDataPoint"}),
    ("Histogram", {1: "HistogramDataPoint"}),
    ("ExponentialHistogram", {1: "ExponentialHistogramDataPoint"}),
    ("Summary", {1: "SummaryDataPoint"}),
    ("NumberDataPoint", {5: "Exemplar", 7: "KeyValue"}),
    ("HistogramDataPoint", {8: "Exemplar", 9: "KeyValue"}),
    ("ExponentialHistogramDataPoint", {1: "KeyValue", 8: "Buckets", 9: "Buckets", 11: "Exemplar"}),
    ("SummaryDataPoint", {6: "ValueAtQuantile", 7: "KeyValue"}),
    ("Exemplar", {7: "KeyValue"}),
    ("KeyValue", {2: "AnyValue"}),
    ("AnyValue", {5: "ArrayValue", 6: "KeyValueList"}),
    ("ArrayValue", {1: "AnyValue"}),
    ("KeyValueList", {1: "KeyValue"}),
    ("EntityRef", {}),
    ("Buckets", {}),
    ("ValueAtQuantile", {}),
)
"""Each message, and which of its fields are messages."""
_MAX_FIELD = 12


def _children():
    """int64 (n_messages, _MAX_FIELD + 1): which message a field of a message is, -1 for none."""
    places = {name: place for place, (name, _) in enumerate(NESTING)}
    out = np.full((len(NESTING), _MAX_FIELD + 1), -1, dtype=np.int64)
    for place, (_, fields) in enumerate(NESTING):
        for number, name in fields.items():
            out[place, number] = places[name]
    return out


CHILDREN = _children()


@kernel("int64(uint8[::1], int64[:, ::1])")
def count_messages(data, children):
    """Number of messages within a request, or MALFORMED or TOO_DEEP.

    data: uint8, the request, from outside: every length is checked. children: as `CHILDREN`.
    """
    ends = np.empty(MAX_DEPTH, dtype=np.int64)
    kinds = np.empty(MAX_DEPTH, dtype=np.int64)
    depth = 0
    ends[0] = len(data)
    kinds[0] = 0
    at = np.int64(0)
    n = np.int64(0)
    while True:
        while at == ends[depth]:
            if depth == 0:
                return n
            depth -= 1
        end = ends[depth]
        tag, at = get_varint(data, at, end)
        if at < 0:
            return np.int64(MALFORMED)
        number = tag >> 3
        child = np.int64(-1)
        if tag & 7 == 2 and 0 < number < children.shape[1]:
            child = children[kinds[depth], number]
        if child < 0:
            at = skip(data, at, end, tag)
            if at < 0:
                return np.int64(MALFORMED)
            continue
        size, at = get_varint(data, at, end)
        if at < 0 or size < 0 or size > end - at:
            return np.int64(MALFORMED)
        n += 1
        depth += 1
        if depth == MAX_DEPTH:
            return np.int64(TOO_DEEP)
        ends[depth] = at + size
        kinds[depth] = child
