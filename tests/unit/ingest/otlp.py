"""What tests of OTLP need: requests from JSON, and what the log has of one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from common.attachments import Kind
from common.labels import parse_canonical
from tests.memory_log import MemoryLog
from tests.oracles import histogram as histogram_oracle
from tests.oracles.histogram import NativeHistogram
from tests.unit.ingest.logs import Samples, batches_of, key_of, samples_of

SERVICE = {"service.name": "shop", "service.namespace": "eu", "service.instance.id": "i-1"}
OF_SERVICE = {"job": "eu/shop", "instance": "i-1"}


def request(*metrics: dict[str, Any], resource: dict[str, Any] | None = None) -> ExportMetricsServiceRequest:
    """A request with one resource, and its metrics as JSON."""
    of_resource = {
        "resource": {"attributes": attributes(resource or {})},
        "scopeMetrics": [{"scope": {"name": "library", "version": "1"}, "metrics": list(metrics)}],
    }
    return ParseDict({"resourceMetrics": [of_resource]}, ExportMetricsServiceRequest())


def attributes(labels: dict[str, Any]) -> list[dict[str, Any]]:
    """Attributes as JSON; a value that is no text is one of an AnyValue."""
    return [
        {"key": key, "value": {"stringValue": value} if isinstance(value, str) else value}
        for key, value in labels.items()
    ]


def point(time_ms: float, labels: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    return {"timeUnixNano": int(time_ms * 1_000_000), "attributes": attributes(labels or {}), **fields}


def gauge(name: str, *points: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": name, "gauge": {"dataPoints": list(points)}, **fields}


def counter(name: str, *points: dict[str, Any], temporality: int = 2, **fields: Any) -> dict[str, Any]:
    data = {"dataPoints": list(points), "aggregationTemporality": temporality, "isMonotonic": True}
    return {"name": name, "sum": data, **fields}


def histogram(name: str, *points: dict[str, Any], temporality: int = 2, **fields: Any) -> dict[str, Any]:
    data = {"dataPoints": list(points), "aggregationTemporality": temporality}
    return {"name": name, "histogram": data, **fields}


def exponential(name: str, *points: dict[str, Any], temporality: int = 2) -> dict[str, Any]:
    data = {"dataPoints": list(points), "aggregationTemporality": temporality}
    return {"name": name, "exponentialHistogram": data}


def summary(name: str, *points: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "summary": {"dataPoints": list(points)}}


@dataclass
class Stored:
    """What the log has: samples without those that are histograms; exemplars as (time, labels)."""

    samples: Samples
    histograms: dict[tuple[tuple[str, str], ...], list[tuple[int, NativeHistogram]]] = field(default_factory=dict)
    exemplars: dict[tuple[tuple[str, str], ...], list[tuple[int, dict[str, str]]]] = field(default_factory=dict)
    metadata: list[dict[str, str]] = field(default_factory=list)


def stored(log: MemoryLog) -> Stored:
    out = Stored(samples_of(log))
    labels: dict[tuple[int, int], tuple[tuple[str, str], ...]] = {}
    for partition, batch in batches_of(log):
        for i, ref in enumerate(batch.declared_refs.tolist()):
            start, end = batch.label_offsets[i : i + 2].tolist()
            labels[partition, ref] = key_of(parse_canonical(batch.label_bytes[start:end].tobytes()))
        rows = batch.attached
        for i in range(len(rows)):
            kind, time, data = int(rows.kinds[i]), int(rows.timestamps[i]), rows.row(i)
            if kind == Kind.METADATA:
                out.metadata.append(orjson.loads(data))
                continue
            series = labels[partition, int(rows.refs[i])]
            if kind == Kind.EXEMPLAR:
                out.exemplars.setdefault(series, []).append((time, parse_canonical(data[8:])))
            else:
                out.histograms.setdefault(series, []).append((time, histogram_oracle.decode(data)))
    for series in out.histograms:
        out.samples.pop(series, None)
    return out
