"""What the routes of ingest take and answer, as OpenAPI has it."""

from __future__ import annotations

from common.openapi import TEXT, Json, Parameter, answer, operation
from ingest import http, import_http, otlp_http
from ingest.openmetrics import OPEN_METRICS

_REFUSED = {
    400: "it cannot be read, or some series are not valid; the message says whether the others are stored",
    413: "it has too many bytes, series or samples",
    415: "its media type or encoding is not understood",
    422: "series break a limit of labels",
    429: "there are too many active series",
    503: "the log does not take more; Retry-After says when to come again",
}


def paths() -> Json:
    """The paths of `ingest.http`, `ingest.import_http` and `ingest.otlp_http`."""
    written = {path: {"post": _write()} for path in http.PATHS}
    return written | {import_http.PATH: {"post": _import()}, otlp_http.PATH: {"post": _otlp()}}


def _responses(stored: str) -> Json:
    refused = {str(status): answer(reason, "text/plain", TEXT) for status, reason in _REFUSED.items()}
    return {"204": answer(stored), **refused}


def _write() -> Json:
    binary = {"schema": {"type": "string", "format": "binary"}}
    return operation(
        "Prometheus' remote write 1.0 and 2.0, snappy",
        _responses("every sample is durable in the log"),
        (Parameter("Content-Encoding", {"enum": ["snappy"]}, "snappy if not given", place="header"),),
        {
            "application/x-protobuf": binary,
            "application/x-protobuf;proto=prometheus.WriteRequest": binary,
            "application/x-protobuf;proto=io.prometheus.write.v2.Request": binary,
        },
    )


def _otlp() -> Json:
    binary = {"type": "string", "format": "binary"}
    media_type = "application/x-protobuf"
    refused = {str(status): answer(reason, media_type, binary) for status, reason in _REFUSED.items()}
    return operation(
        "Metrics of OpenTelemetry (OTLP)",
        {"200": answer("stored, but for what a partial_success says", media_type, binary), **refused},
        (Parameter("Content-Encoding", {"enum": ["gzip", "identity"]}, "none if not given", place="header"),),
        {media_type: {"schema": binary}},
    )


def _import() -> Json:
    return operation(
        "Back-filling from text",
        _responses("every sample is durable in the log"),
        (Parameter("Content-Encoding", {"enum": ["gzip", "identity"]}, "none if not given", place="header"),),
        {"text/plain": {"schema": TEXT}, OPEN_METRICS: {"schema": TEXT}},
    )
