"""What the routes of ingest take and answer, as OpenAPI has it."""

from __future__ import annotations

from common.openapi import TEXT, Json, Parameter, answer, operation
from ingest import http, import_http
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
    """The paths of `ingest.http` and `ingest.import_http`."""
    return {path: {"post": _write()} for path in http.PATHS} | {import_http.PATH: {"post": _import()}}


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


def _import() -> Json:
    return operation(
        "Back-filling from text",
        _responses("every sample is durable in the log"),
        (Parameter("Content-Encoding", {"enum": ["gzip", "identity"]}, "none if not given", place="header"),),
        {"text/plain": {"schema": TEXT}, OPEN_METRICS: {"schema": TEXT}},
    )
