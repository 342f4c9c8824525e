"""Records for tests: series and samples as plain Python, and a log that holds them."""

from __future__ import annotations

import numpy as np

from common.labels import canonical_labels, series_id
from common.log.base import Append
from common.record import RecordBatch, encode_record
from tests.memory_log import MemoryLog

HOUR_MS = 3_600_000
T0 = 1_700_006_400_000
"""Start of a window."""


def make_batch(
    declared: list[tuple[int, dict[str, str]]],
    samples: list[tuple[int, int, float]],
    *,
    producer_id: int = 1,
    created_ms: int = T0,
) -> RecordBatch:
    """A batch with (ref, labels) declarations and (ref, timestamp, value) samples."""
    sets = [canonical_labels(labels) for _, labels in declared]
    return RecordBatch(
        producer_id=producer_id,
        created_ms=created_ms,
        declared_refs=np.array([ref for ref, _ in declared], dtype=np.uint32),
        declared_ids=np.frombuffer(b"".join(map(series_id, sets)), dtype=np.uint8).reshape(-1, 16),
        label_offsets=np.cumsum([0, *map(len, sets)]).astype(np.int64),
        label_bytes=np.frombuffer(b"".join(sets), dtype=np.uint8),
        refs=np.array([ref for ref, _, _ in samples], dtype=np.uint32),
        timestamps=np.array([time for _, time, _ in samples], dtype=np.int64),
        values=np.array([value for _, _, value in samples], dtype=np.float64),
    )


def labels_of(series: int) -> dict[str, str]:
    return {"__name__": f"metric_{series % 3}", "series": f"{series:03d}"}


def write(log: MemoryLog, partition: int, batch: RecordBatch) -> None:
    log.append([Append(partition, encode_record(batch))]).result(5)


def fill(
    log: MemoryLog, *, n_series: int = 5, n_samples: int = 20, first_ms: int = T0, step_ms: int = 15_000
) -> None:
    """Write the same samples for as many series into every partition, declared by the first record."""
    for partition in range(log.partitions):
        for i in range(n_samples):
            time = first_ms + i * step_ms
            series = [(ref, labels_of(1000 * partition + ref)) for ref in range(n_series)]
            samples = [(ref, time, float(ref + i)) for ref in range(n_series)]
            write(log, partition, make_batch(series if i == 0 else [], samples, created_ms=time))
