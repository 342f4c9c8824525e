"""Records: frozen bytes are still read, the format page says what they are, and bad bytes are refused."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import xxhash
import zstandard

from common import record
from common.errors import CorruptError
from common.record import (
    HEADER_BYTES,
    RecordBatch,
    decode_record,
    decode_records,
    encode_record,
    encode_records,
    max_encoded_bytes,
)
from tests.golden.record_cases import FOLDER, batch_of, cases
from tests.oracles.record import read_payload

HEADER = struct.Struct("<4sBBHQQqIIIIII")
CASES = cases()


def assert_same(one: RecordBatch, other: RecordBatch) -> None:
    for name in RecordBatch.__slots__:
        a, b = getattr(one, name), getattr(other, name)
        if name == "values":
            a, b = a.view(np.uint64), b.view(np.uint64)
        if name == "attached":
            a, b = a.encode(0), b.encode(0)
        if isinstance(a, int | bytes):
            assert a == b, name
        else:
            assert a.dtype == b.dtype, name
            np.testing.assert_array_equal(a, b, err_msg=name)


def sealed(prefix: bytes, body: bytes) -> bytes:
    """A record of these parts with the right checksum."""
    seed = struct.unpack("<Q", prefix)[0]
    return prefix + struct.pack("<Q", xxhash.xxh3_64_intdigest(body, seed)) + body


def with_header(data: bytes, payload: bytes | None = None, **changes: int) -> bytes:
    """The record with some header fields replaced and the checksum made right."""
    names = ["magic", "version", "kind", "flags", "checksum", "producer_id", "created_ms"]
    names += ["n_declared", "n_samples", "n_label_bytes", "size", "packed_size", "n_attached"]
    fields = dict(zip(names, HEADER.unpack_from(data), strict=True)) | changes
    packed = HEADER.pack(*fields.values())
    return sealed(packed[:8], packed[16:] + (data[HEADER.size :] if payload is None else payload))


@pytest.mark.parametrize("name", CASES)
def test_frozen_records_are_read_as_they_were_written(name: str) -> None:
    assert_same(decode_record((FOLDER / f"{name}.bin").read_bytes()), CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_records_come_back_as_they_went(name: str) -> None:
    assert_same(decode_record(encode_record(CASES[name])), CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_a_payload_is_what_the_format_page_says(name: str) -> None:
    batch, data = CASES[name], encode_record(CASES[name])
    _, version, kind, flags, _, producer, created, n_declared, n_samples, n_labels, size, packed, n_attached = (
        HEADER.unpack_from(data)
    )
    assert (version, kind, producer, created) == (1, 1, batch.producer_id, batch.created_ms)
    payload = data[HEADER_BYTES:]
    assert len(payload) == packed
    if flags & 1:
        payload = zstandard.ZstdDecompressor().decompress(payload)
    assert len(payload) == size
    found = read_payload(payload, n_declared, n_samples, n_labels, created, bool(flags & 2), n_attached)
    assert [ref for ref, _, _ in found.declarations] == batch.declared_refs.tolist()
    assert b"".join(series for _, series, _ in found.declarations) == batch.declared_ids.tobytes()
    assert b"".join(labels for _, _, labels in found.declarations) == batch.label_bytes.tobytes()
    assert found.refs == batch.refs.tolist()
    assert found.timestamps == batch.timestamps.tolist()
    assert found.value_bits == batch.values.view(np.uint64).tolist()
    attached = batch.attached
    columns = attached.kinds.tolist(), attached.refs.tolist(), attached.timestamps.tolist()
    rows = [attached.row(i) for i in range(len(attached))]
    assert found.attachments == list(zip(*columns, rows, strict=True))
    assert bool(flags & 4) == bool(rows)


def test_both_ways_of_writing_timestamps_and_of_packing_are_among_the_cases() -> None:
    flags = {HEADER.unpack_from(encode_record(batch))[3] for batch in CASES.values()}
    assert flags >= {0, 1, 3}


@pytest.mark.parametrize("name", CASES)
def test_a_record_cut_anywhere_or_with_bytes_behind_it_is_corrupt(name: str) -> None:
    data = encode_record(CASES[name])
    for length in range(len(data)):
        with pytest.raises(CorruptError):
            decode_record(data[:length])
    with pytest.raises(CorruptError):
        decode_record(data + b"\0")


@pytest.mark.parametrize("name", ["empty", "one-sample", "declarations", "special-values", "extreme-numbers"])
def test_a_record_with_any_bit_flipped_is_corrupt(name: str) -> None:
    data = bytearray(encode_record(CASES[name]))
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptError):
            decode_record(bytes(data))
        data[bit // 8] ^= 1 << bit % 8


def test_the_error_names_partition_and_offset() -> None:
    with pytest.raises(CorruptError, match="less than a header") as refused:
        decode_record(b"short", partition=3, offset=42)
    assert (refused.value.partition, refused.value.offset) == (3, 42)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": 2}, "unknown format version 2"),
        ({"kind": 9}, "unknown kind of record 9"),
        ({"flags": 8}, "unknown flags"),
        ({"n_samples": 3}, "varint|ref is outside"),
        ({"n_samples": 0xFFFFFFFF}, "does not fit its counts"),
        ({"n_declared": 0xFFFFFFFF}, "does not fit its counts"),
        ({"n_label_bytes": 0xFFFFFFFF}, "does not fit its counts"),
        ({"size": 0xFFFFFFFF}, "does not fit its counts"),
        ({"packed_size": 1}, "instead of 1"),
        ({"size": 1000}, "instead of 1000"),
    ],
)
def test_a_header_that_lies_under_a_right_checksum_is_corrupt(changes: dict[str, int], reason: str) -> None:
    data = encode_record(CASES["one-sample"])
    with pytest.raises(CorruptError, match=reason):
        decode_record(with_header(data, None, **changes))


def test_a_frame_that_claims_an_enormous_size_allocates_nothing() -> None:
    data = encode_record(CASES["scrape"])
    # A zstd frame header with an eight-byte content size of 2^50 (RFC 8878, section 3.1.1).
    bomb = struct.pack("<IBQ", 0xFD2FB528, 0xE0, 1 << 50) + bytes(10)
    with pytest.raises(CorruptError, match="another size than the header says"):
        decode_record(with_header(data, bomb, packed_size=len(bomb)))


def test_a_frame_that_holds_garbage_is_corrupt() -> None:
    data = encode_record(CASES["scrape"])
    payload = bytearray(data[HEADER_BYTES:])
    for at in range(len(payload)):
        payload[at] ^= 0x55
        with contextlib.suppress(CorruptError):
            decode_record(with_header(data, bytes(payload)))
        payload[at] ^= 0x55


def raw_record(payload: bytes, **counts: int) -> bytes:
    """An uncompressed record with this payload."""
    counts = {"n_declared": 0, "n_samples": 0, "n_label_bytes": 0} | counts
    return with_header(
        encode_record(batch_of()), payload, flags=0, size=len(payload), packed_size=len(payload), **counts
    )


@pytest.mark.parametrize(
    ("payload", "counts", "reason"),
    [
        (b"\x00\x00\x01\x00", {"n_samples": 1}, None),
        (b"\x00\x00\x00" + bytes(8), {"n_samples": 1}, None),
        (b"\x80\x80\x80\x80", {"n_samples": 1}, "varint"),
        (b"\x00" + b"\xff" * 9 + b"\x02\x01\x00", {"n_samples": 1}, "varint"),
        (b"\x01\x00\x01\x00", {"n_samples": 1}, "ref is outside"),
        (b"\xfe\xff\xff\xff\x3f\x00\x01\x00", {"n_samples": 1}, "ref is outside"),
        (b"\x00\x00\x03\x00", {"n_samples": 1}, "bits behind the last sample"),
        (b"\x00\x00\x01\x00\x00", {"n_samples": 1}, "too long"),
        (b"\x00\x00\x00" + bytes(7), {"n_samples": 1}, "too short"),
        (b"\x00\x04" + bytes(16) + b"\x01a\x01b", {"n_declared": 1, "n_label_bytes": 4}, None),
        (b"\x00\x03" + bytes(16) + b"\x01a\x01b", {"n_declared": 1, "n_label_bytes": 4}, "add up"),
        (b"\x00\x05" + bytes(16) + b"\x01a\x01b", {"n_declared": 1, "n_label_bytes": 4}, "add up"),
        (b"\x00\x04" + bytes(16) + b"\x01a\x02b", {"n_declared": 1, "n_label_bytes": 4}, "not canonical"),
        (b"\x00\x04" + bytes(16) + b"\x01a\x00b", {"n_declared": 1, "n_label_bytes": 4}, "not canonical"),
        (b"\x00\x04" + bytes(16) + b"\x01a\x01\xff", {"n_declared": 1, "n_label_bytes": 4}, "not UTF-8"),
        (
            b"\x00\x08" + bytes(16) + b"\x01b\x01b\x01a\x01b",
            {"n_declared": 1, "n_label_bytes": 8},
            "not canonical",
        ),
        (
            b"\x00\x08" + bytes(16) + b"\x01a\x01b\x01a\x01c",
            {"n_declared": 1, "n_label_bytes": 8},
            "not canonical",
        ),
    ],
)
def test_a_payload_that_lies_under_a_right_checksum_is_corrupt(
    payload: bytes, counts: dict[str, int], reason: str | None
) -> None:
    data = raw_record(payload, **counts)
    if reason is None:
        decode_record(data)
    else:
        with pytest.raises(CorruptError, match=reason):
            decode_record(data)


def test_labels_are_held_to_the_same_utf8_as_python() -> None:
    samples = [b"\xc3\xa9", b"\xc0\x80", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xed\x9f\xbf", b"\xf0\x9f\x98\x80"]
    samples += [
        b"\xf4\x8f\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\xf5\x80\x80\x80",
        b"\x80",
        b"\xc3",
        b"\xe2\x82",
        b"\xc3(",
    ]
    samples += [
        bytes([a, b, c]) for a in range(0, 256, 5) for b in (0x7F, 0x80, 0xA0, 0xBF, 0xC0) for c in (0x41, 0x80)
    ]
    for text in samples:
        labels = b"\x01a" + bytes([len(text)]) + text
        data = raw_record(
            b"\x00" + bytes([len(labels)]) + bytes(16) + labels, n_declared=1, n_label_bytes=len(labels)
        )
        try:
            text.decode()
        except UnicodeDecodeError:
            with pytest.raises(CorruptError, match="UTF-8"):
                decode_record(data)
        else:
            decode_record(data)


def test_columns_of_different_lengths_are_refused() -> None:
    batch = batch_of([(0, 0, 0)])
    wrong = replace(batch, values=np.empty(2))
    with pytest.raises(ValueError, match="differ in length"):
        encode_record(wrong)


def test_a_batch_beyond_the_payload_limit_is_refused() -> None:
    n = 1_000_000
    huge = replace(
        batch_of(), refs=np.zeros(n, np.uint32), timestamps=np.zeros(n, np.int64), values=np.zeros(n, np.float64)
    )
    with pytest.raises(ValueError, match="too large"):
        encode_record(huge)


def test_no_record_exceeds_the_size_that_is_foretold() -> None:
    rng = np.random.default_rng(5)
    worst = [
        (int(rng.integers(0, 2)) * 0xFFFFFFFF, int(rng.integers(-(1 << 62), 1 << 62)) * (-1) ** i, int(bits))
        for i, bits in enumerate(rng.integers(0, 1 << 63, 200))
    ]
    batch = batch_of(worst, [(i * 0xFFFFFFFF % (1 << 32), {"a": str(i)}) for i in range(20)])
    assert len(encode_record(batch)) <= max_encoded_bytes(200, 20, len(batch.label_bytes))


def test_parts_of_a_batch_are_encoded_as_if_each_were_a_batch() -> None:
    samples = [(i % 7, 1000 * (i // 3), i * 0.5) for i in range(50)]
    batch = batch_of(samples, [(i, {"a": "x" * i}) for i in range(1, 8)])
    cuts = [(0, 3, 0, 10), (3, 3, 10, 11), (3, 7, 11, 11), (7, 7, 11, 50), (0, 0, 0, 0)]
    labels = batch.label_offsets
    for data, (first, last, start, end) in zip(
        encode_records(batch, np.array(cuts, dtype=np.int64)), cuts, strict=True
    ):
        part = replace(
            batch,
            declared_refs=batch.declared_refs[first:last],
            declared_ids=batch.declared_ids[first:last],
            label_offsets=labels[first : last + 1] - labels[first],
            label_bytes=batch.label_bytes[labels[first] : labels[last]],
            refs=batch.refs[start:end],
            timestamps=batch.timestamps[start:end],
            values=batch.values[start:end],
        )
        assert data == encode_record(part)


@pytest.mark.parametrize("together_bytes", [1, 300, 1 << 20])
def test_records_decoded_together_are_those_decoded_alone(
    together_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "_DECODED_TOGETHER_BYTES", together_bytes)
    good = [encode_record(batch) for batch in CASES.values()]
    payload_at_fault = raw_record(b"\x01\x00\x01\x00", n_samples=1)
    values = [data for one in good for data in (one, one[:-1], payload_at_fault)]
    found = list(decode_records(values))
    assert sum(map(len, found)) == len(values)
    assert len(found) == (1 if together_bytes == 1 << 20 else len(found))
    outcomes = [(part, i) for part in found for i in range(len(part))]
    for (part, i), data in zip(outcomes, values, strict=True):
        if data in good:
            assert_same(part.batch(i, i + 1), decode_record(data))
        else:
            with pytest.raises(CorruptError, match=part.faults[i][:20]):
                decode_record(data)


def test_records_in_a_row_can_be_seen_as_one() -> None:
    values = [
        encode_record(replace(batch_of([(i, 5, 1.0)], [(i, {"a": str(i)})]), created_ms=100 - i)) for i in range(3)
    ]
    (found,) = decode_records(values)
    batch = found.batch(1, 3)
    assert batch.refs.tolist() == batch.declared_refs.tolist() == [1, 2]
    assert batch.label_offsets.tolist() == [0, 4, 8]
    assert batch.label_bytes.tobytes() == b"\x01a\x011\x01a\x012"
    assert batch.created_ms == 99


def test_the_kernels_do_the_same_as_plain_python() -> None:
    script = """
import numpy as np
from common.record import decode_record, encode_record
from tests.golden.record_cases import FOLDER, cases
from tests.unit.common.test_record import assert_same
with np.errstate(over="ignore"):
    for name, batch in cases().items():
        assert encode_record(batch) == (FOLDER / f"{name}.bin").read_bytes(), name
        assert_same(decode_record(encode_record(batch)), batch)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
