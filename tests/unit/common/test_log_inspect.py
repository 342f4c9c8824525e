"""`tabor log inspect`, without the command line."""

from __future__ import annotations

import json
from dataclasses import replace

from common.attachments import NO_REF, Attachments, Kind
from common.log.base import Append
from common.record import encode_record
from tabor.log_inspect import inspect
from tests.golden.record_cases import batch_of, bits_of, cases
from tests.memory_log import MemoryLog


def filled(*values: bytes) -> MemoryLog:
    log = MemoryLog(2)
    log.append([Append(1, value) for value in values]).result()
    return log


def test_people_see_producer_labels_and_the_first_samples() -> None:
    samples = [(i % 2, 1_750_000_000_000 + i, bits_of(i / 2)) for i in range(7)]
    log = filled(
        encode_record(batch_of(samples, [(0, {"__name__": "up", "job": 'a"b'})], created_ms=1_750_000_000_500))
    )
    text = "\n".join(inspect(log, 1, 0, None, False))
    assert "partition 1 offset 0: " in text
    assert "producer 0123456789abcdef, created 2025-06-15T15:06:40.500Z, 1 declarations, 7 samples" in text
    assert "declares ref 0 id " in text
    assert '{__name__="up", job="a\\"b"}' in text
    assert "samples of 2 series from 2025-06-15T15:06:40.000Z to 2025-06-15T15:06:40.006Z" in text
    assert "ref 1 at 2025-06-15T15:06:40.003Z: 1.5" in text
    assert "and 2 more" in text


def test_programs_get_every_field_and_exact_values() -> None:
    log = filled(encode_record(cases()["special-values"]), encode_record(cases()["declarations"]))
    first, second = (json.loads(line) for line in inspect(log, 1, 0, None, True))
    assert first["producer_id"] == "0123456789abcdef"
    values = [sample["value"] for sample in first["samples"]]
    assert str(values[1]) == "-0.0"
    assert values[2:7] == [
        "NaN:0x7ff8000000000001",
        "NaN:0x7ff0000000000002",
        "NaN:0xfff80000deadbeef",
        "+Inf",
        "-Inf",
    ]
    assert first["samples"][3]["stale"] is True
    assert values[7] == 5e-324
    assert second["offset"] == 1
    assert second["declarations"][1]["labels"] == {"__name__": "größe", "ort": "東京" * 50}
    assert len(second["declarations"][0]["id"]) == 32


def test_a_corrupt_record_is_shown_with_its_reason_and_the_next_one_follows() -> None:
    good = encode_record(batch_of())
    log = filled(good[:-1], b"TABRxx", good)
    text = list(inspect(log, 1, 0, None, False))
    assert "CORRUPT: 55 bytes are less than a header" in text[0]
    assert text[1].startswith("  begins with 54 41 42 52 01 01")
    assert "0 samples" in text[-1]
    lines = [json.loads(line) for line in inspect(log, 1, 1, None, True)]
    assert lines[0] == {
        "partition": 1,
        "offset": 1,
        "size_bytes": 6,
        "error": "6 bytes are less than a header",
        "prefix_hex": "544142527878",
    }
    assert lines[1]["samples"] == []


def test_it_begins_at_the_offset_and_ends_at_the_limit() -> None:
    log = filled(*[encode_record(batch_of())] * 10)
    offsets = [json.loads(line)["offset"] for line in inspect(log, 1, 4, 3, True)]
    assert offsets == [4, 5, 6]
    assert list(inspect(log, 1, 10, None, True)) == []
    assert list(inspect(log, 0, 0, 5, True)) == []


def test_a_log_whose_beginning_was_removed_says_where_it_starts() -> None:
    log = filled(*[encode_record(batch_of())] * 4)
    log.cut(1, 2)
    text = list(inspect(log, 1, 0, 1, False))
    assert text[0] == "the log of partition 1 starts at offset 2"
    assert text[1].startswith("partition 1 offset 2:")


def test_attachments_are_named_with_their_series_and_size() -> None:
    rows = [(Kind.HISTOGRAM, 3, 1_750_000_000_000, b"\x00\xff"), (Kind.METADATA, NO_REF, 0, b"{}")]
    log = filled(encode_record(replace(batch_of(), attached=Attachments.of(rows))))
    text = list(inspect(log, 1, 0, None, False))
    assert text[0].endswith("0 samples, 2 attachments")
    assert text[1:] == ["  histogram of ref 3 at 2025-06-15T15:06:40.000Z: 2 bytes", "  metadata: 2 bytes"]
    (line,) = (json.loads(line) for line in inspect(log, 1, 0, None, True))
    assert line["attachments"] == [
        {"kind": "histogram", "ref": 3, "timestamp_ms": 1_750_000_000_000, "bytes_hex": "00ff"},
        {"kind": "metadata", "ref": None, "timestamp_ms": 0, "bytes_hex": "7b7d"},
    ]
