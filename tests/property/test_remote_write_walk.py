"""The walk against the slow parser, on good, cut and damaged requests."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common.labels import series_id
from ingest.batcher import Batcher
from ingest.config import IngestConfig
from ingest.errors import BadRequest
from ingest.remote_write import RemoteWriteReader
from tests.oracles import remote_write as oracle
from tests.oracles.histogram import NativeHistogram

CONFIG = IngestConfig(max_labels_per_series=4, max_label_name_bytes=12, max_label_value_bytes=9)
STALE = 0x7FF0000000000002
EXEMPLAR = oracle.label_field(b"trace", b"1") + b"\x11" + struct.pack("<d", 2.5) + b"\x18\x07"
NATIVE = NativeHistogram(1, 5, 2.5, 0.1, 2, ((-1, 1), (1, 1)), (1, 2), is_float=False)
HISTOGRAM = oracle.delimited(4, NATIVE.message(1234))

names = st.sampled_from(
    [b"__name__", b"a", b"b", b"job", "température".encode(), b"", b"x" * 13, b"\xff", b"zz", b"zzz"]
)
values = st.sampled_from([b"", b"up", b"v" * 10, "é".encode(), b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"1"])
good_names = st.sampled_from([b"a", b"b", b"job", b"zone", b"A"])
good_values = st.sampled_from([b"1", b"2", b"", "ü".encode(), b"long-one"])
samples = st.lists(
    st.tuples(
        st.integers(-(1 << 63), (1 << 63) - 1),
        st.sampled_from([0, STALE, 1 << 63, struct.unpack("<Q", struct.pack("<d", 1.5))[0], (1 << 64) - 1]),
    ),
    max_size=4,
)


@st.composite
def good_labels(draw):
    labels = draw(st.dictionaries(good_names, good_values, max_size=3))
    labels[b"__name__"] = draw(st.sampled_from([b"up", b"down", b"m3"]))
    return sorted(labels.items())


labels_of_any_kind = st.one_of(good_labels(), good_labels(), st.lists(st.tuples(names, values), max_size=5))

unknown_fields = st.sampled_from(
    [b"", oracle.delimited(9, b"abc"), b"\x48\x07", b"\x49" + bytes(8), b"\x4d" + bytes(4), b"\x4b\x50\x01\x4c"]
)


@st.composite
def any_series(draw):
    """A TimeSeries with its fields in any order, unknown fields, exemplars and histograms between them."""
    parts = [oracle.label_field(*label) for label in draw(labels_of_any_kind)]
    others = [oracle.sample_field(*sample) for sample in draw(samples)]
    others += draw(st.lists(st.sampled_from([oracle.delimited(3, EXEMPLAR), HISTOGRAM]), max_size=2))
    others.append(draw(unknown_fields))
    if draw(st.integers(0, 3)):
        parts += others
    else:
        for other in others:
            parts.insert(draw(st.integers(0, len(parts))), other)
    return oracle.delimited(1, b"".join(parts))


@st.composite
def requests(draw):
    parts = draw(st.lists(any_series(), max_size=6))
    parts.insert(0, draw(unknown_fields))
    parts.append(oracle.delimited(3, oracle.delimited(2, b"family")))
    return b"".join(parts)


def new_batcher() -> Batcher:
    return Batcher(4, 1000, 3_600_000, None)


def take(reader: RemoteWriteReader, batcher: Batcher, data: bytes):
    """Give a request to the reader; returns (id of the series, timestamp, bits) of its samples, faults of series,
    and how many histograms and exemplars it took."""
    before = batcher.n_samples
    taken = reader.take(oracle.snappy(data), batcher)
    here = slice(before, batcher.n_samples)
    ids = [row.tobytes() for row in batcher.table.ids[batcher.slots[here]]]
    got = list(zip(ids, batcher.timestamps[here].tolist(), batcher.values[here].tolist(), strict=True))
    assert len(got) == taken.n_samples - taken.n_histograms
    faults = {fault.value: n for fault, n in taken.faults if not fault.value.startswith("histogram")}
    return got, faults, (taken.n_histograms, taken.n_exemplars)


def expected(data: bytes):
    out = []
    faults: dict[str, int] = {}
    n_histograms = n_exemplars = 0
    for series in oracle.parse(data):
        fault = series.fault(max_labels=4, max_name=12, max_value=9)
        if fault is None:
            n_histograms += len(series.histograms)
            n_exemplars += len(series.exemplars)
            identity = series_id(series.canonical())
            out += [(identity, timestamp, bits) for timestamp, bits in series.samples]
        else:
            faults[fault] = faults.get(fault, 0) + 1
    return out, faults, (n_histograms, n_exemplars)


def has_others(data: bytes) -> bool:
    """Whether there are histograms, exemplars or metadata, whose insides the slow parser does not look at."""
    if any(number == 3 for number, _ in oracle.fields(data, known=())):
        return True
    return any(series.histograms or series.exemplars for series in oracle.parse(data))


def check(reader: RemoteWriteReader, batcher: Batcher, data: bytes, *, damaged: bool = True) -> None:
    """The reader agrees with the oracle; also when the series are known already."""
    try:
        want = expected(data)
    except oracle.NotAMessage:
        before = batcher.n_samples
        with pytest.raises(BadRequest):
            take(reader, batcher, data)
        assert batcher.n_samples == before
        return
    for _ in range(2):
        if not (damaged and has_others(data)):
            assert take(reader, batcher, data) == want
            continue
        mark = batcher.mark()
        try:
            assert take(reader, batcher, data)[:2] == want[:2]
        except BadRequest:
            assert batcher.mark() == mark


@settings(deadline=None, max_examples=200)
@given(st.lists(requests(), min_size=1, max_size=3))
def test_requests_become_the_samples_that_the_slow_parser_reads(bodies):
    reader, batcher = RemoteWriteReader(CONFIG), new_batcher()
    for body in bodies:
        check(reader, batcher, body, damaged=False)


@settings(deadline=None, max_examples=60)
@given(requests(), st.data())
def test_damaged_requests_are_refused_or_read_as_the_slow_parser_reads_them(body, data):
    reader, batcher = RemoteWriteReader(CONFIG), new_batcher()
    for _ in range(10):
        damaged = bytearray(body)
        for _ in range(data.draw(st.integers(1, 3))):
            if damaged:
                bit = data.draw(st.integers(0, 8 * len(damaged) - 1))
                damaged[bit // 8] ^= 1 << bit % 8
        check(reader, batcher, bytes(damaged))


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=60))
@example(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
@example(b"\x0a\x0b\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x00")
@example(b"\x0b" * 50)
def test_any_bytes_are_refused_or_read_as_the_slow_parser_reads_them(body):
    check(RemoteWriteReader(CONFIG), new_batcher(), body)


def test_a_request_cut_at_any_byte_is_refused_whole_or_is_a_shorter_request():
    body = oracle.request(
        [
            ({"__name__": "up", "job": "a"}, [(1_700_000_000_000, 1.5), (1_700_000_005_000, 2.5)]),
            ({"__name__": "up", "job": "b", "a": "ü"}, [(-5, float("inf"))]),
        ]
    )
    reader, batcher = RemoteWriteReader(CONFIG), new_batcher()
    for end in range(len(body)):
        check(reader, batcher, body[:end])


def test_every_flipped_bit_is_refused_or_read_as_the_slow_parser_reads_it():
    body = oracle.request([({"__name__": "up", "job": "a"}, [(1_700_000_000_000, 1.5), (7, 2.5)])])
    reader, batcher = RemoteWriteReader(CONFIG), new_batcher()
    for bit in range(8 * len(body)):
        damaged = bytearray(body)
        damaged[bit // 8] ^= 1 << bit % 8
        check(reader, batcher, bytes(damaged))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.binary(max_size=40), max_size=30, unique=True), st.integers(0, 9))
def test_different_bytes_have_different_hashes_wherever_they_lie(texts, shift):
    """Seen through the walk: distinct values are distinct series, at any alignment."""
    config = IngestConfig(max_label_value_bytes=40)
    reader, batcher = RemoteWriteReader(config), new_batcher()
    values = sorted({text.hex().encode()[:40] for text in texts} | {b"x" * n for n in range(1, 20)})
    body = oracle.delimited(9, b"m" * shift) + b"".join(
        oracle.series_field([(b"__name__", value)], [(1, 1)]) for value in values if value
    )
    for _ in range(2):
        take(reader, batcher, body)
    n = sum(1 for value in values if value)
    assert batcher.table.n_slots == n
    assert np.array_equal(batcher.slots[: 2 * n], np.tile(np.arange(n), 2))
