"""Histograms, exemplars and metadata from a request into records, against the slow writer."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.attachments import NO_REF, Kind
from common.labels import canonical_labels, series_id
from common.record import decode_record
from ingest.batcher import Batcher, Group
from ingest.config import IngestConfig
from ingest.errors import BadRequest
from ingest.remote_write import RemoteWriteReader
from tests.oracles import remote_write as oracle
from tests.oracles.histogram import NativeHistogram

HOUR_MS = 3_600_000
counts = st.integers(0, 1 << 40)
floats = st.floats(0, 1e18) | st.sampled_from([0.0, 5e-324, 1e300])
any_sum = st.floats(allow_nan=False) | st.just(float("inf"))


@st.composite
def sides(draw, elements):
    n = draw(st.integers(0, 4))
    first = draw(st.integers(-500, 500))
    spans = tuple((draw(st.integers(0, 90)) if i else first, draw(st.integers(0, 4))) for i in range(n))
    n_buckets = sum(length for _, length in spans)
    return spans, tuple(draw(st.lists(elements, min_size=n_buckets, max_size=n_buckets)))


@st.composite
def histograms(draw):
    """A histogram that Prometheus would take."""
    is_float = draw(st.booleans())
    elements = floats if is_float else counts
    positive_spans, positive = draw(sides(elements))
    negative_spans, negative = draw(sides(elements))
    zero = draw(elements)
    total = draw(elements) if is_float else sum(positive) + sum(negative) + zero
    return NativeHistogram(
        draw(st.integers(-4, 8)), total, draw(any_sum), draw(floats), zero,
        positive_spans, positive, negative_spans, negative, (), draw(st.integers(0, 3)), is_float,
    )  # fmt: skip


@st.composite
def custom_histograms(draw):
    bounds = tuple(sorted(draw(st.sets(st.floats(-1e9, 1e9), min_size=1, max_size=6))))
    is_float = draw(st.booleans())
    n = len(bounds) + 1
    positive = tuple(draw(st.lists(floats if is_float else counts, min_size=n, max_size=n)))
    total = sum(positive) if not is_float else draw(floats)
    return NativeHistogram(
        -53, total, draw(any_sum), positive_spans=((0, n),), positive=positive, bounds=bounds,
        hint=draw(st.integers(0, 3)), is_float=is_float,
    )  # fmt: skip


def take(message: bytes, batcher: Batcher):
    return RemoteWriteReader(IngestConfig()).take_message(message, batcher)


def new_batcher() -> Batcher:
    return Batcher(4, 1000, HOUR_MS, None)


def series(labels: dict[str, str], *others: bytes) -> bytes:
    pairs = sorted((name.encode(), value.encode()) for name, value in labels.items())
    return oracle.delimited(1, b"".join(oracle.label_field(*pair) for pair in pairs) + b"".join(others))


def rows_of(group: Group) -> list[tuple[int, bytes | None, int, bytes]]:
    """(kind, id of the series, timestamp, bytes) of all rows of a group."""
    ids: dict[tuple[int, int], bytes] = {}
    out = []
    for append in group.records:
        batch = decode_record(append.value)
        for ref, identity in zip(batch.declared_refs.tolist(), batch.declared_ids, strict=True):
            ids[append.partition, ref] = identity.tobytes()
        attached = batch.attached
        for i, (kind, ref, time) in enumerate(
            zip(attached.kinds.tolist(), attached.refs.tolist(), attached.timestamps.tolist(), strict=True)
        ):
            out.append((kind, None if ref == NO_REF else ids[append.partition, ref], time, attached.row(i)))
    return out


@settings(deadline=None, max_examples=150)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(-5, 1 << 45), histograms() | custom_histograms()), max_size=8
    )
)
def test_histograms_reach_the_log_as_the_bytes_of_the_format(samples):
    batcher = new_batcher()
    message = b"".join(
        series({"__name__": name}, oracle.delimited(4, histogram.message(time)))
        for name, time, histogram in samples
    )
    taken = take(message, batcher)
    assert (taken.refusal, taken.n_samples, taken.n_histograms) == (None, len(samples), len(samples))
    want = [
        (Kind.HISTOGRAM, series_id(canonical_labels({"__name__": name})), time, histogram.encode())
        for name, time, histogram in samples
    ]
    assert sorted(rows_of(batcher.seal(7))) == sorted(want) if samples else batcher.mark() == (0, (0, 0, 0))


@settings(deadline=None, max_examples=150)
@given(histograms() | custom_histograms(), st.data())
def test_a_damaged_histogram_is_refused_or_is_another_histogram(histogram, data):
    message = bytearray(histogram.message(5))
    for _ in range(data.draw(st.integers(1, 4))):
        bit = data.draw(st.integers(0, 8 * len(message) - 1))
        message[bit // 8] ^= 1 << bit % 8
    message = message[: data.draw(st.integers(0, len(message)))]
    batcher = new_batcher()
    try:
        taken = take(series({"__name__": "a"}, oracle.delimited(4, bytes(message))), batcher)
    except BadRequest:
        assert batcher.mark() == (0, (0, 0, 0))
        return
    assert (taken.refusal is None) == (taken.n_samples == 1)


GOOD = NativeHistogram(1, 6, 2.5, 0.1, 2, ((-1, 1), (1, 1)), (1, 2), ((3, 1),), (1,), is_float=False)
CUSTOM = NativeHistogram(-53, 3, 2.5, positive_spans=((0, 2),), positive=(1, 2), bounds=(0.5,), is_float=False)


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        (replace(GOOD, schema=9), "histogram_schema"),
        (replace(GOOD, zero_threshold=float("nan")), "histogram_zero_threshold"),
        (replace(GOOD, zero_threshold=-0.5), "histogram_zero_threshold"),
        (replace(GOOD, schema=-5), "histogram_schema"),
        (replace(GOOD, positive_spans=((-1, 1), (-1, 1))), "histogram_spans"),
        (replace(GOOD, positive_spans=((2147483647, 1), (2147483647, 1))), "histogram_spans"),
        (replace(GOOD, positive_spans=((-1, 3),)), "histogram_buckets"),
        (replace(GOOD, positive=(1, 2, 3)), "histogram_buckets"),
        (replace(GOOD, negative=(-1,), count=4), "histogram_negative_count"),
        (replace(GOOD, is_float=True, zero_count=-1.0), "histogram_negative_count"),
        (replace(GOOD, is_float=True, positive=(1.0, -0.5)), "histogram_negative_count"),
        (replace(GOOD, count=7), "histogram_count"),
        (replace(GOOD, count=5, sum=float("nan")), "histogram_count"),
        (replace(GOOD, bounds=(1.0,)), "histogram_bounds"),
        (replace(CUSTOM, bounds=(0.5, 0.5)), "histogram_bounds"),
        (replace(CUSTOM, bounds=(float("inf"),)), "histogram_bounds"),
        (replace(CUSTOM, positive_spans=((1, 2),)), "histogram_bounds"),
        (replace(CUSTOM, positive_spans=((-1, 2),)), "histogram_bounds"),
        (replace(CUSTOM, bounds=(float("-inf"),)), "histogram_bounds"),
        (replace(CUSTOM, zero_count=1, count=4), "histogram_bounds"),
        (replace(CUSTOM, negative_spans=((1, 1),), negative=(1,), count=4), "histogram_bounds"),
    ],
)
def test_what_is_no_histogram_is_refused_by_name_and_the_floats_beside_it_are_stored(bad, fault):
    batcher = new_batcher()
    histogram, sample = oracle.delimited(4, bad.message(5)), oracle.sample_field(5, 1)
    taken = take(series({"__name__": "a"}, histogram) + series({"__name__": "b"}, sample), batcher)
    assert [(fault.value, n) for fault, n in taken.faults] == [(fault, 1)]
    assert '{__name__="a"}: a histogram' in taken.refusal.message
    assert (taken.n_samples, taken.n_histograms, taken.refusal.status) == (1, 0, 400)
    assert batcher.attached.n_rows == 0


def test_a_count_above_its_buckets_is_taken_if_the_sum_is_not_a_number() -> None:
    histogram = replace(GOOD, count=7, sum=float("nan"))
    taken = take(series({"__name__": "a"}, oracle.delimited(4, histogram.message(5))), new_batcher())
    assert taken.n_histograms == 1


def test_a_stale_histogram_is_a_stale_float_sample() -> None:
    batcher = new_batcher()
    stale = replace(GOOD, sum=struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0])
    taken = take(series({"__name__": "a"}, oracle.delimited(4, stale.message(77))), batcher)
    assert (taken.n_samples, taken.n_histograms, batcher.n_samples) == (1, 0, 1)
    assert batcher.values[0] == 0x7FF0000000000002
    assert batcher.timestamps[0] == 77


def exemplar(labels: dict[str, str], value: float, time: int) -> bytes:
    out = b"".join(oracle.label_field(k.encode(), v.encode()) for k, v in labels.items())
    return oracle.delimited(
        3, out + b"\x11" + struct.pack("<d", value) + b"\x18" + oracle.uvarint(time % (1 << 64))
    )


def test_exemplars_reach_the_log_and_those_that_break_the_rules_are_counted() -> None:
    batcher = new_batcher()
    good = exemplar({"trace_id": "abc", "a": "b"}, 1.5, -3)
    bad = [exemplar({"x": "y" * 128}, 1.0, 1), exemplar({"": "y"}, 1.0, 1)]
    bad.append(oracle.delimited(3, oracle.label_field(b"a", b"\xff")))
    taken = take(series({"__name__": "a"}, good, *bad), batcher)
    assert (taken.n_samples, taken.n_exemplars, taken.n_dropped_exemplars) == (0, 1, 3)
    identity = series_id(canonical_labels({"__name__": "a"}))
    row = struct.pack("<d", 1.5) + canonical_labels({"a": "b", "trace_id": "abc"})
    assert rows_of(batcher.seal(7)) == [(Kind.EXEMPLAR, identity, -3, row)]


def metadata(family: str, kind: int = 1) -> bytes:
    fields = ((2, family), (4, "what it is"), (5, "s"))
    return oracle.delimited(
        3, b"\x08" + bytes([kind]) + b"".join(oracle.delimited(n, text.encode()) for n, text in fields)
    )


def test_metadata_is_sent_once_until_it_changes_or_an_hour_has_passed() -> None:
    batcher = new_batcher()

    def sent(now_ms: int, *messages: bytes) -> list[bytes]:
        batcher.begin(now_ms)
        take(b"".join(messages), batcher)
        group = batcher.seal(now_ms)
        batcher.acknowledged(group)
        return [row[3] for row in rows_of(group)]

    row = b'{"family":"http","type":"counter","help":"what it is","unit":"s"}'
    assert sent(0, metadata("http")) == [row]
    assert sent(1, metadata("http")) == []
    assert sent(2, metadata("http", 2)) == [row.replace(b"counter", b"gauge")]
    assert sent(HOUR_MS, metadata("http"), metadata("http", 9)) == [row, row.replace(b"counter", b"unknown")]


def test_metadata_that_the_log_did_not_acknowledge_is_sent_again() -> None:
    batcher = new_batcher()
    for now_ms in (0, 1):
        batcher.begin(now_ms)
        take(metadata("http"), batcher)
        assert len(batcher.seal(now_ms).records) == 1


@pytest.mark.parametrize("field", [3, 4])
def test_a_message_inside_that_is_malformed_refuses_the_request_whole(field: int) -> None:
    batcher = new_batcher()
    message = series({"__name__": "b"}, oracle.sample_field(5, 1), oracle.delimited(field, b"\x0a\x05a"))
    with pytest.raises(BadRequest, match="malformed"):
        take(message, batcher)
    assert batcher.mark() == (0, (0, 0, 0))


def test_many_rows_go_into_several_records_below_the_limit_in_order() -> None:
    batcher = new_batcher()
    wide = replace(
        GOOD, is_float=True, positive_spans=((0, 4000),), positive=tuple(np.random.default_rng(1).random(4000))
    )
    n = 60
    message = b"".join(
        series({"__name__": "a", "b": "x" * 5000}, oracle.delimited(4, wide.message(i))) for i in range(n)
    )
    take(message, batcher)
    group = batcher.seal(7)
    assert len(group.records) > 5
    assert max(len(record.value) for record in group.records) <= 900 * 1024
    assert [row[2] for row in rows_of(group)] == list(range(n))
