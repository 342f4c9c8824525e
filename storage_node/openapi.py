"""What the routes of a storage node take and answer, as OpenAPI has it; the read API is not for others."""

from __future__ import annotations

from common.openapi import TEXT, WHOLE, Json, Parameter, answer, array, failures, operation, record, success

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
