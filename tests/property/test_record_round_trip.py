"""Any batch survives encoding, bit for bit, and no bytes crash the decoder."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import CorruptError
from common.record import HEADER_BYTES, decode_record, encode_record
from tests.golden.record_cases import batch_of, bits_of
from tests.unit.common.test_record import assert_same, raw_record, with_header

REFS = st.one_of(st.integers(0, 50), st.integers(0, (1 << 32) - 1))
TIMES = st.one_of(st.integers(1_750_000_000_000, 1_750_000_060_000), st.integers(-(1 << 63), (1 << 63) - 1))
BITS = st.one_of(
    st.integers(0, (1 << 64) - 1),
    st.integers(-1000, 1000).map(lambda i: bits_of(float(i))),
    st.floats().map(bits_of),
    st.sampled_from([bits_of(sign * (2.0**53 + d)) for sign in (1, -1) for d in (-1, 0, 2)]),
)
LABELS = st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=200), max_size=4)


@settings(deadline=None, max_examples=150)
@given(
    samples=st.lists(st.tuples(REFS, TIMES, BITS), max_size=40),
    declared=st.lists(st.tuples(REFS, LABELS), max_size=5),
    producer_id=st.integers(0, (1 << 64) - 1),
    created_ms=TIMES,
)
def test_any_batch_comes_back_bit_for_bit(
    samples: list[tuple[int, int, int]],
    declared: list[tuple[int, dict[str, str]]],
    producer_id: int,
    created_ms: int,
) -> None:
    batch = batch_of(samples, declared, producer_id=producer_id, created_ms=created_ms)
    assert_same(decode_record(encode_record(batch)), batch)


@settings(deadline=None, max_examples=150)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_record_or_corrupt(data: bytes) -> None:
    for candidate in (data, raw_record(data, n_samples=min(3, len(data) // 3))):
        try:
            decode_record(candidate)
        except CorruptError:
            continue


@settings(deadline=None, max_examples=150)
@given(
    payload=st.binary(max_size=120),
    n_declared=st.integers(0, 5),
    n_samples=st.integers(0, 40),
    n_label_bytes=st.integers(0, 60),
    double=st.booleans(),
)
def test_any_payload_under_a_right_checksum_is_a_record_or_corrupt(
    payload: bytes, n_declared: int, n_samples: int, n_label_bytes: int, double: bool
) -> None:
    data = with_header(
        encode_record(batch_of()),
        payload,
        flags=2 if double else 0,
        size=len(payload),
        packed_size=len(payload),
        n_declared=n_declared,
        n_samples=n_samples,
        n_label_bytes=n_label_bytes,
    )
    assert len(data) == HEADER_BYTES + len(payload)
    try:
        batch = decode_record(data)
    except CorruptError:
        return
    assert len(batch.refs) == n_samples
    assert_same(decode_record(encode_record(batch)), batch)
