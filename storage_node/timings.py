"""How long the stages of a storage node's work take."""

from __future__ import annotations

from prometheus_client import Histogram

STAGES = ("apply", "checkpoint", "flush", "merge", "purge", "match", "read")
"""apply: records of one poll. checkpoint: of one partition. flush: making checkpoints durable. merge: segments of
one window. purge: writing anew what has deletions. match: finding a read's series. read: their samples.
"""

_SECONDS = Histogram(
    "tabor_storage_node_stage_seconds",
    "Time of each piece of work: applying records of a poll, checkpoint of a partition, flush, merge of segments, "
    "purge of what was deleted, matching the series of a read, reading their samples.",
    ["stage"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
SECONDS = {stage: _SECONDS.labels(stage) for stage in STAGES}
