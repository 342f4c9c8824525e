"""Batches whose encoded bytes are kept in `tests/golden/record/`; every later version must read them.

`python -m tests.golden.record_cases` writes files that are missing, never one that is there.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from common.attachments import NO_REF, Attachments, Kind
from common.labels import canonical_labels, series_id
from common.record import RecordBatch, encode_record
from common.store import Matcher, MatchOp
from common.tombstones import Tombstone
from tests.oracles.histogram import NativeHistogram

FOLDER = Path(__file__).parent / "record"
INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1


def batch_of(
    samples: Sequence[tuple[int, int, int]] = (),
    declared: Sequence[tuple[int, dict[str, str]]] = (),
    *,
    producer_id: int = 0x0123456789ABCDEF,
    created_ms: int = 1_750_000_000_000,
) -> RecordBatch:
    """A batch from (ref, timestamp, bits of the value) and (ref, labels)."""
    labels = [canonical_labels(label_set) for _, label_set in declared]
    return RecordBatch(
        producer_id=producer_id,
        created_ms=created_ms,
        declared_refs=np.array([ref for ref, _ in declared], dtype=np.uint32),
        declared_ids=np.frombuffer(b"".join(map(series_id, labels)), dtype=np.uint8).reshape(-1, 16),
        label_offsets=np.cumsum([0, *map(len, labels)], dtype=np.int64),
        label_bytes=np.frombuffer(b"".join(labels), dtype=np.uint8),
        refs=np.array([ref for ref, _, _ in samples], dtype=np.uint32),
        timestamps=np.array([timestamp for _, timestamp, _ in samples], dtype=np.int64),
        values=np.array([bits for _, _, bits in samples], dtype=np.uint64).view(np.float64),
    )


def _histogram() -> NativeHistogram:
    return NativeHistogram(1, 6, 2.5, 0.1, 2, ((-1, 1), (1, 1)), (1, 2), ((3, 1),), (1,))


def _matcher(op: str, value: str) -> Matcher:
    return Matcher(MatchOp(op), "__name__", value)


def bits_of(value: float) -> int:
    return int(np.float64(value).view(np.uint64))


def cases() -> dict[str, RecordBatch]:
    now = 1_750_000_000_000
    special = {
        "zero": 0,
        "minus zero": 1 << 63,
        "NaN": 0x7FF8000000000001,
        "stale marker": 0x7FF0000000000002,
        "negative NaN with a payload": 0xFFF80000DEADBEEF,
        "infinity": 0x7FF0000000000000,
        "minus infinity": 0xFFF0000000000000,
        "smallest subnormal": 1,
        "largest": 0x7FEFFFFFFFFFFFFF,
        "2^53 - 1": bits_of(2.0**53 - 1),
        "2^53": bits_of(2.0**53),
        "-(2^53 - 1)": bits_of(1 - 2.0**53),
        "-1": bits_of(-1.0),
        "one half": bits_of(0.5),
    }
    return {
        "empty": batch_of(),
        "one-sample": batch_of([(0, now - 17, bits_of(1.5))]),
        "declarations": batch_of(
            [(0, now, bits_of(1.0)), (1, now, bits_of(2.0))],
            [(0, {"__name__": "up", "job": "node"}), (1, {"__name__": "größe", "ort": "東京" * 50}), (2, {})],
        ),
        "special-values": batch_of([(i, now + i, bits) for i, bits in enumerate(special.values())]),
        "extreme-numbers": batch_of(
            [(0, INT64_MIN, 0), (0xFFFFFFFF, INT64_MAX, 0), (0, 0, 0), (1, INT64_MIN, 0), (2, -1, 0)],
            [(0xFFFFFFFF, {"a": "b"}), (0, {"a": "c"})],
            producer_id=(1 << 64) - 1,
            created_ms=INT64_MIN,
        ),
        "steady-steps": batch_of([(7, now + 15_000 * i, bits_of(i * 0.1)) for i in range(500)]),
        "scrape": batch_of([(i, now - 3, bits_of(float(i * i) if i % 3 else i / 7)) for i in range(300)]),
        "attachments": replace(
            batch_of([(1, now, bits_of(1.0))], [(0, {"__name__": "latency"}), (1, {"__name__": "up"})]),
            attached=Attachments.of(
                [
                    (Kind.HISTOGRAM, 0, now, _histogram().encode()),
                    (Kind.EXEMPLAR, 1, now - 1, struct.pack("<d", 1.0) + canonical_labels({"trace_id": "ü"})),
                    (Kind.METADATA, NO_REF, 0, b'{"family":"up","type":"gauge","help":"","unit":""}'),
                ]
            ),
        ),
        "tombstones": replace(
            batch_of(),
            attached=Attachments.of(
                [
                    (Kind.TOMBSTONE, NO_REF, 0, Tombstone((_matcher("=", "up"),), INT64_MIN, INT64_MAX).encode()),
                    (Kind.TOMBSTONE, NO_REF, 0, Tombstone((_matcher("!~", "ü|b"),), now - 1, now).encode()),
                ]
            ),
        ),
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, batch in cases().items():
        path = FOLDER / f"{name}.bin"
        if not path.exists():
            path.write_bytes(encode_record(batch))
