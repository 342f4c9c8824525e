"""OTLP: a body is refused, or becomes messages of remote write that say what protobuf finds in it.

What is refused is counted by data point. If nothing is, the samples are those of a slow translation, apart from
`target_info` and native histograms, of which only the number is compared.
"""

from __future__ import annotations

import struct
from collections import Counter
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from common.kernels.otlp import CHILDREN, count_messages
from common.store import STALE_NAN_BITS
from ingest.config import IngestConfig
from ingest.errors import BadRequest, BodyTooLarge
from ingest.otlp import MAX_REASON_CHARACTERS, MAX_REASONS, Translation, parse
from ingest.remote_write import RemoteWriteReader
from ingest.write_request import SPELLED_OUT
from tests.oracles import remote_write as oracle
from tests.property.test_otlp_messages import messages_in
from tests.property.test_remote_write_walk import new_batcher

CONFIG = IngestConfig(max_body_bytes=1 << 14, max_samples_per_request=2000)
PER_MESSAGE = 16


def one_input(data: bytes) -> object:
    """data: an ExportMetricsServiceRequest before compression."""
    try:
        want = ExportMetricsServiceRequest.FromString(data)
    except DecodeError:
        want = None
    n_messages = int(count_messages(np.frombuffer(bytearray(data), dtype=np.uint8), CHILDREN))
    try:
        request = parse(data, CONFIG.max_body_bytes)
    except BodyTooLarge:
        assert n_messages > CONFIG.max_body_bytes // PER_MESSAGE
        return "too many messages"
    except BadRequest as error:
        assert want is None or n_messages < 0, "protobuf reads it"
        return n_messages, str(error)
    assert want is not None, "protobuf refuses it"
    assert n_messages >= messages_in(want)
    translation, pieces = Translation(request, CONFIG), []
    try:
        pieces += translation.pieces()
    except BodyTooLarge as error:
        return str(error)
    assert 0 <= translation.n_refused <= translation.n_points == len(points_of(want))
    assert len(translation.reasons) == len(set(translation.reasons)) <= MAX_REASONS
    assert all(len(reason) <= MAX_REASON_CHARACTERS + 1 for reason in translation.reasons)
    found: Counter[tuple[int, int]] = Counter()
    n_histograms, outcomes = 0, []
    for piece in pieces:
        series = oracle.parse(piece.message)
        assert piece.n_samples == sum(len(one.samples) + len(one.histograms) for one in series)
        for one in series:
            assert one.fault(max_labels=1 << 20, max_name=1 << 20, max_value=1 << 20) is None, one
            n_histograms += len(one.histograms)
            if (b"__name__", b"target_info") not in one.labels:
                found.update(one.samples)
        outcomes.append(taken(piece.message))
    if not translation.n_refused and not may_be_info(want):
        samples, histograms = slow_translation(want)
        assert (found, n_histograms) == (samples, histograms)
    return translation.n_points, translation.n_refused, translation.reasons, outcomes


def taken(message: bytes) -> object:
    """What remote write takes of a piece, which it never refuses as a whole, but for its size."""
    batcher = new_batcher()
    try:
        got = RemoteWriteReader(CONFIG).take_message(message, batcher)
    except BodyTooLarge as error:
        assert len(message) > SPELLED_OUT * CONFIG.max_body_bytes
        return str(error)
    here = slice(0, batcher.n_samples)
    return repr(got), batcher.timestamps[here].tolist(), batcher.values[here].tolist()


def points_of(request: Any) -> list[tuple[str, Any]]:
    """Kind and data point, of all metrics."""
    return [
        (kind, point)
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if (kind := metric.WhichOneof("data")) is not None
        for point in getattr(metric, kind).data_points
    ]


def may_be_info(request: Any) -> bool:
    """Whether a metric may have the name of the one that is made of resources."""
    return any(
        "info" in metric.name + metric.unit
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    )


def slow_translation(request: Any) -> tuple[Counter[tuple[int, int]], int]:
    """Time and bits of each sample, and the number of native histograms."""
    samples: Counter[tuple[int, int]] = Counter()
    n_histograms = 0
    for kind, point in points_of(request):
        if kind == "exponential_histogram":
            n_histograms += 1
            continue
        if kind in ("gauge", "sum"):
            values = [point.as_double if point.WhichOneof("value") == "as_double" else point.as_int]
        elif kind == "summary":
            values = [point.sum, point.count, *(each.value for each in point.quantile_values)]
        else:
            values = [point.sum] if point.HasField("sum") else []
            n_bounds = min(len(point.explicit_bounds), len(point.bucket_counts))
            values += [point.count, point.count, *(sum(point.bucket_counts[: i + 1]) for i in range(n_bounds))]
        for value in values:
            bits = STALE_NAN_BITS if point.flags & 1 else struct.unpack("<Q", struct.pack("<d", value))[0]
            samples[point.time_unix_nano // 1_000_000, bits] += 1
    return samples, n_histograms
