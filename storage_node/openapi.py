"""What the routes of a storage node take and answer, as OpenAPI has it."""

from __future__ import annotations

from common.openapi import TEXT, WHOLE, Json, Parameter, answer, array, failures, operation, record, success
from common.store import MAX_TIME_MS, MIN_TIME_MS, MatchOp
from common.wire.evaluation import MAX_STEP_MS
from common.wire.frames import MEDIA_TYPE
from common.wire.marks import COPY_PATH, REPAIR_PATH
from common.wire.marks import PATH as MARK_PATH
from common.wire.reports import PATH as REPORT_PATH
from common.wire.requests import MAX_WAIT_S, PATHS, VERSION

_OF_A_PARTITION: Json = {"node": TEXT, "partition": WHOLE}
_COUNTS = ("partition", "start", "next_offset", "high_watermark", "lag", "series", "samples", "bytes")


def paths() -> Json:
    """The paths of `storage_node.http`."""
    partition = record(**dict.fromkeys(_COUNTS, WHOLE))
    partition["properties"]["digest"] = TEXT
    found = success(record(partitions=array(partition)))
    responses = {
        "200": answer("the state of each partition", "application/json", found),
        **failures({400: "a parameter is wrong", 503: "the log or the views are not there just now"}),
    }
    digest = Parameter("digest", {"type": "boolean"}, "whether to calculate what two replicas have to agree on")
    return {"/api/v1/status/partitions": {"get": operation("Offsets, lag and sizes", responses, (digest,))}}


def read_paths() -> Json:
    """The paths of `storage_node.reads_http`, which are for query servers of the same version."""
    refused = {
        400: "the request cannot be read",
        413: "it is too large",
        421: "it is meant for another node",
        503: "too many reads wait, or the views are not open yet",
    }
    failure = record(type=TEXT, message=TEXT)
    responses = {
        "200": answer(
            "frames, of which the last may be an error", MEDIA_TYPE, {"type": "string", "format": "binary"}
        ),
        **{str(status): answer(reason, "application/json", failure) for status, reason in refused.items()},
    }

    def body(read: str) -> Json:
        more = {"evaluation": _evaluation()} if read == "evaluate" else {}
        return {"application/json": {"schema": _read_request(**more)}}

    return {
        path: {"post": operation(f"For query servers: {read}", responses, body=body(read))}
        for read, path in PATHS.items()
    }


def copy_paths() -> Json:
    """The path of `storage_node.copies_http`, for other nodes of the same version and for backups."""
    copied = answer("a copy, as frames", MEDIA_TYPE, {"type": "string", "format": "binary"})
    copy = record(v={"const": 1}, snapshot=TEXT, after=TEXT, **_OF_A_PARTITION)
    return {COPY_PATH: _peer_post("For other nodes and backups: a copy of a partition", copy, copied)}


def mark_paths() -> Json:
    """The paths of `storage_node.marks_http`, for other nodes of the same version."""
    windows: Json = {"type": "object", "additionalProperties": TEXT}
    marked = answer("digests", "application/json", record(v={"const": 1}, digest=TEXT, windows=windows))
    repaired = answer("it is fetched anew", "application/json", record(partition=WHOLE))
    mark = record(v={"const": 1}, offset=WHOLE, **_OF_A_PARTITION)
    return {
        MARK_PATH: _peer_post("For other nodes: digests at a mark", mark, marked),
        REPAIR_PATH: _peer_post("For other nodes: fetch a partition anew", mark, repaired),
    }


def report_paths() -> Json:
    """The path of `storage_node.report_http`, for query servers of the same version."""
    rows = array({"type": "array"})
    reported = answer("what it knows", "application/json", record(v={"const": 1}, compared=rows, copying=rows))
    asked = record(v={"const": 1}, offset=WHOLE, **_OF_A_PARTITION)
    return {REPORT_PATH: _peer_post("For query servers: audits and copies", asked, reported)}


def _peer_post(summary: str, request: Json, well: Json) -> Json:
    refused = {
        400: "the request cannot be read",
        413: "it is too large",
        421: "it is meant for another node",
        503: "the node does not have that, or not yet, or not any more",
    }
    failure = record(type=TEXT, message=TEXT)
    failed = {str(status): answer(reason, "application/json", failure) for status, reason in refused.items()}
    body = {"application/json": {"schema": request}}
    return {"post": operation(summary, {"200": well, **failed}, body=body)}


def _evaluation() -> Json:
    some_time: Json = {"type": "integer", "minimum": -MAX_STEP_MS, "maximum": MAX_STEP_MS}
    times = dict.fromkeys(("first_ms", "query_start_ms", "query_end_ms"), some_time)
    some_number: Json = {"type": "integer", "minimum": 1, "maximum": MAX_STEP_MS}
    numbers = dict.fromkeys(("n_steps", "lookback_ms", "subquery_step_ms"), some_number)
    counts = dict.fromkeys(("step_ms", "query_step_ms", "samples_read", "series_read"), WHOLE)
    return record(
        query=TEXT,
        strict={"type": "boolean"},
        path=array(WHOLE),
        timeout_s={"type": "number", "exclusiveMinimum": 0},
        **times,
        **numbers,
        **counts,
    )


def _read_request(**more: Json) -> Json:
    time: Json = {"type": "integer", "minimum": MIN_TIME_MS, "maximum": MAX_TIME_MS}
    matcher: Json = {
        "type": "array",
        "prefixItems": [{"enum": [op.value for op in MatchOp]}, TEXT, TEXT],
        "items": False,
        "minItems": 3,
    }
    return record(
        v={"const": VERSION},
        node=TEXT,
        partitions=array(WHOLE),
        required={"type": ["array", "null"], "items": WHOLE},
        wait_s={"type": "number", "minimum": 0, "maximum": MAX_WAIT_S},
        matcher_sets=array(array(matcher)),
        min_time_ms=time,
        max_time_ms=time,
        max_samples={"type": "integer", "minimum": 0, "maximum": MAX_TIME_MS},
        max_series={"type": "integer", "minimum": 0, "maximum": MAX_TIME_MS},
        label=TEXT,
        **more,
    )
