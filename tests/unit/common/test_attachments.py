"""Attachments of a record, there and back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from common.attachments import MAX_BYTES, NO_REF, Attachments, Kind
from common.errors import CorruptError
from common.record import RecordBatch, decode_record, decode_records, encode_record
from tests.oracles.histogram import NativeHistogram, decode

ROWS = [
    (Kind.HISTOGRAM, 7, 1_700_000_000_000, b"one"),
    (Kind.EXEMPLAR, 3, -(1 << 63), b""),
    (Kind.METADATA, NO_REF, (1 << 63) - 1, b"\x00" * 300),
]


def batch(rows: list[tuple[Kind, int, int, bytes]], n_samples: int = 2) -> RecordBatch:
    return RecordBatch(
        producer_id=1,
        created_ms=1_700_000_000_123,
        declared_refs=np.zeros(0, dtype=np.uint32),
        declared_ids=np.zeros((0, 16), dtype=np.uint8),
        label_offsets=np.zeros(1, dtype=np.int64),
        label_bytes=np.zeros(0, dtype=np.uint8),
        refs=np.arange(n_samples, dtype=np.uint32),
        timestamps=np.arange(n_samples, dtype=np.int64),
        values=np.arange(n_samples, dtype=np.float64),
        attached=Attachments.of(rows),
    )


def rows_of(attached: Attachments) -> list[tuple[int, int, int, bytes]]:
    columns = (attached.kinds.tolist(), attached.refs.tolist(), attached.timestamps.tolist())
    return [(*row, attached.row(i)) for i, row in enumerate(zip(*columns, strict=True))]


@pytest.mark.parametrize("n_samples", [0, 2])
def test_attachments_come_back_as_they_went_in_with_the_samples_untouched(n_samples: int) -> None:
    decoded = decode_record(encode_record(batch(ROWS, n_samples)))
    assert rows_of(decoded.attached) == ROWS
    assert decoded.refs.tolist() == list(range(n_samples))


def test_a_record_without_attachments_has_none_and_its_bytes_do_not_mention_them() -> None:
    record = encode_record(batch([]))
    assert not len(decode_record(record).attached)
    assert record[6:8] == b"\0\0"


def test_rows_are_taken_in_the_order_asked_for() -> None:
    taken = Attachments.of(ROWS).take(np.array([2, 0]))
    assert rows_of(taken) == [ROWS[2], ROWS[0]]


def test_of_records_decoded_together_each_keeps_its_own_attachments_and_faults() -> None:
    records = [
        encode_record(batch(ROWS)),
        b"not a record",
        encode_record(batch([])),
        encode_record(batch(ROWS[:1])),
    ]
    decoded = next(decode_records(records))
    assert sorted(decoded.attached) == [0, 3]
    assert sorted(decoded.faults) == [1]
    assert rows_of(decoded.batch(2, 4).attached) == ROWS[:1]


@pytest.mark.parametrize("cut", range(0, 400, 7))
def test_a_damaged_section_is_refused_whatever_is_wrong_with_it(cut: int) -> None:
    section = Attachments.of(ROWS).encode(0)
    if cut < len(section):
        with pytest.raises(ValueError, match="attach"):
            Attachments.decode(section[:cut], 0)
    with pytest.raises(ValueError, match="unknown kind"):
        Attachments.decode(section[:4] + b"\xff" + section[5:], 0)


def test_a_row_that_is_too_long_is_refused() -> None:
    record = encode_record(batch([(Kind.HISTOGRAM, 1, 1, bytes(MAX_BYTES + 1))]))
    with pytest.raises(CorruptError, match="more than 65536 bytes"):
        decode_record(record)


@pytest.mark.parametrize("is_float", [True, False])
def test_the_oracle_reads_the_histograms_that_it_writes(is_float: bool) -> None:
    plain = NativeHistogram(2, 12, 3.5, 0.001, 2, ((-3, 2), (1, 1)), (1, 4, 2), ((5, 1),), (3,), (), 3, is_float)
    custom = replace(
        plain, schema=-53, zero_threshold=0.0, zero_count=0, negative_spans=(), negative=(), bounds=(0.5, 2.5)
    )
    for histogram in (plain, custom):
        assert decode(histogram.encode()) == histogram
    assert plain.buckets() == {-3: 1, -2: 4, 0: 2}
