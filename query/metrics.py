"""What the query side counts."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

QUERIES = Counter("tabor_query_requests_total", "Requests answered, by API and HTTP status.", ["api", "code"])
READS = Counter("tabor_query_remote_reads_total", "Remote reads answered, by type of the answer.", ["type"])
QUERIES_RUNNING = Gauge("tabor_query_running", "Queries being evaluated now.")
QUERY_SECONDS = Histogram("tabor_query_evaluation_seconds", "Time from start of evaluation to its result.")
