"""What tests of ingest need: a registry of their own, and a log read back as samples."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from prometheus_client import CollectorRegistry

from common.labels import parse_canonical
from common.record import RecordBatch, decode_record
from ingest.metrics import IngestMetrics
from tests.memory_log import MemoryLog

Samples = dict[tuple[tuple[str, str], ...], list[tuple[int, float]]]


def own_metrics() -> IngestMetrics:
    return IngestMetrics(CollectorRegistry())


def batches_of(log: MemoryLog) -> list[tuple[int, RecordBatch]]:
    """All records, as (partition, batch), in order of offset within each partition."""
    reader = log.reader(dict.fromkeys(range(log.partitions), 0))
    out = []
    while records := reader.poll(0.0):
        out += [(record.partition, decode_record(record.value)) for record in records]
    return out


def samples_of(log: MemoryLog) -> Samples:
    """Samples by labels as a view of the log would see them: refs mean what was declared before, in the log."""
    labels: dict[tuple[int, int, int], tuple[tuple[str, str], ...]] = {}
    out: Samples = {}
    for partition, batch in batches_of(log):
        for i, ref in enumerate(batch.declared_refs.tolist()):
            start, end = batch.label_offsets[i : i + 2].tolist()
            canonical = batch.label_bytes[start:end].tobytes()
            labels[partition, batch.producer_id, ref] = key_of(parse_canonical(canonical))
        for ref, timestamp, value in zip(
            batch.refs.tolist(), batch.timestamps.tolist(), batch.values.tolist(), strict=True
        ):
            out.setdefault(labels[partition, batch.producer_id, ref], []).append((timestamp, value))
    return out


def n_declared(log: MemoryLog) -> int:
    return sum(len(batch.declared_refs) for _, batch in batches_of(log))


def key_of(labels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))


def bits(value: float) -> int:
    return int(struct.unpack("<Q", struct.pack("<d", value))[0])
