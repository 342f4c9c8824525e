"""What the query side counts."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from query.engine.stages import STAGES

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
"""Bounds from the quickest stage of a small query to the default of --query-timeout."""

QUERIES = Counter("tabor_query_requests_total", "Requests answered, by API and HTTP status.", ["api", "code"])
READS = Counter("tabor_query_remote_reads_total", "Remote reads answered, by type of the answer.", ["type"])
QUERIES_RUNNING = Gauge("tabor_query_running", "Queries being evaluated now.")
QUERY_SECONDS = Histogram(
    "tabor_query_evaluation_seconds", "Time from start of evaluation to its result.", buckets=SECONDS
)
SLOW_QUERIES = Counter("tabor_query_slow_total", "Queries that took longer than --slow-query-threshold.")
_STAGE_SECONDS = Histogram(
    "tabor_query_stage_seconds",
    "Time of each stage of a query: waiting for its turn, for what was acknowledged before, parsing, planning, "
    "what storage nodes evaluate, reading samples, computing, encoding the answer.",
    ["stage"],
    buckets=SECONDS,
)
STAGE_SECONDS = {stage: _STAGE_SECONDS.labels(stage) for stage in STAGES}
