"""What logs count, whichever they are."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

FAILED_APPENDS = Counter(
    "tabor_log_failed_appends_total", "Appends that the log did not acknowledge; their records may be in it."
)
SYNC_SECONDS = Histogram(
    "tabor_log_sync_seconds",
    "Time that the local log took to make a group of records durable.",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
