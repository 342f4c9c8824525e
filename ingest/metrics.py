"""What ingest counts. No label value comes from users' data."""

from __future__ import annotations

import functools

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram


class IngestMetrics:
    """The metrics of ingest in one registry, which several ingestors and producers may share."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "tabor_ingest_requests_total", "Remote write requests answered.", ["code"], registry=registry
        )
        self.received_bytes = Counter(
            "tabor_ingest_received_bytes_total", "Bytes of remote write bodies as sent.", registry=registry
        )
        self.samples = Counter("tabor_ingest_samples_total", "Samples acknowledged by the log.", registry=registry)
        self.exemplars = Counter(
            "tabor_ingest_exemplars_total", "Exemplars of requests, by outcome.", ["outcome"], registry=registry
        )
        self.lost_samples = Counter(
            "tabor_ingest_failed_samples_total", "Samples the log did not acknowledge.", registry=registry
        )
        self.series_created = Counter(
            "tabor_ingest_series_created_total", "Series seen for the first time.", registry=registry
        )
        self.series_active = Gauge("tabor_ingest_series", "Series in the ingestor's table.", registry=registry)
        self.series_refused = Counter(
            "tabor_ingest_series_refused_total", "Series of requests refused.", ["reason"], registry=registry
        )
        self.limited = Counter(
            "tabor_ingest_limited_requests_total",
            "Requests refused with 429, by the limit that was reached.",
            ["limit"],
            registry=registry,
        )
        self.declarations = Counter(
            "tabor_ingest_declarations_total", "Declarations of series sent to the log.", registry=registry
        )
        self.groups = Counter("tabor_ingest_groups_total", "Group commits sent to the log.", registry=registry)
        self.records = Counter("tabor_ingest_records_total", "Records sent to the log.", registry=registry)
        self.record_bytes = Counter(
            "tabor_ingest_record_bytes_total", "Bytes of records sent to the log.", registry=registry
        )
        stages = Counter(
            "tabor_ingest_stage_seconds_total",
            "Time spent in each stage of writes: receiving bodies of remote write, decompressing, walking them, "
            "batching their samples, encoding records, appending them to the log.",
            ["stage"],
            registry=registry,
        )
        self.receive_seconds = stages.labels("receive")
        self.decompress_seconds = stages.labels("decompress")
        self.walk_seconds = stages.labels("walk")
        self.batch_seconds = stages.labels("batch")
        self.encode_seconds = stages.labels("encode")
        self.append_seconds = stages.labels("append")
        self.commit_seconds = Histogram(
            "tabor_ingest_commit_seconds",
            "Time from when a group commit was given to the log until the log acknowledged it.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
            registry=registry,
        )


@functools.cache
def process_metrics() -> IngestMetrics:
    """The metrics that this process shows at /metrics."""
    return IngestMetrics(REGISTRY)
