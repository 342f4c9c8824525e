"""Remote write 2.0 is read as the request of 1.0 that says the same; damage is told."""

from __future__ import annotations

import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.attachments import Kind
from common.labels import canonical_labels, series_id
from common.record import decode_record
from ingest.batcher import Batcher
from ingest.config import IngestConfig
from ingest.errors import BadRequest, BodyTooLarge
from ingest.remote_write import RemoteWriteReader
from ingest.remote_write_v2 import Transcoder
from tests.oracles import remote_write as v1
from tests.oracles.histogram import NativeHistogram
from tests.oracles.remote_write_v2 import SeriesV2, request

NATIVE = NativeHistogram(1, 5, 2.5, 0.1, 2, ((-1, 1), (1, 1)), (1, 2), is_float=False)
LIMIT = 1 << 20
texts = st.text(max_size=5)
labels = st.lists(st.tuples(texts, texts), max_size=4)
bits = st.sampled_from([0, 0x7FF0000000000002, 1 << 63, struct.unpack("<Q", struct.pack("<d", 1.5))[0]])
times = st.integers(-(1 << 63), (1 << 63) - 1)
series = st.builds(
    SeriesV2,
    labels,
    st.lists(st.tuples(times, bits), max_size=3),
    st.lists(times.map(NATIVE.message), max_size=2),
    st.lists(st.tuples(labels, st.floats(allow_nan=False), times), max_size=2),
)


def message(data: bytes, limit: int = LIMIT) -> bytes:
    return Transcoder(limit).message(np.frombuffer(bytearray(data), dtype=np.uint8))


def parts(data: bytes) -> list[tuple[object, ...]]:
    """What a message of 1.0 says of each series."""
    out: list[tuple[object, ...]] = []
    for one in v1.parse(data):
        out.append((one.labels, one.samples, one.histograms, one.exemplars))
    return out


def exemplar(labels: list[tuple[str, str]], value: float, time: int) -> bytes:
    fields = b"".join(v1.label_field(a.encode(), b.encode()) for a, b in labels)
    return fields + b"\x11" + struct.pack("<d", value) + b"\x18" + v1.uvarint(time & (1 << 64) - 1)


@settings(deadline=None, max_examples=200)
@given(st.lists(series, max_size=5), st.booleans())
def test_a_request_is_read_as_the_one_of_version_1_that_says_the_same(found, packed):
    want = [
        (
            [(a.encode(), b.encode()) for a, b in one.labels],
            one.samples,
            one.histograms,
            [exemplar(*each) for each in one.exemplars],
        )
        for one in found
    ]
    assert parts(message(request(found, packed=packed))) == want


@settings(deadline=None, max_examples=150)
@given(st.lists(series, min_size=1, max_size=3), st.data())
def test_damaged_requests_are_refused_or_are_other_requests(found, data):
    damaged = bytearray(request(found))
    for _ in range(data.draw(st.integers(1, 4))):
        bit = data.draw(st.integers(0, 8 * len(damaged) - 1))
        damaged[bit // 8] ^= 1 << bit % 8
    damaged = damaged[: data.draw(st.integers(0, len(damaged)))]
    batcher = Batcher(4, 1000, 3_600_000, None)
    try:
        RemoteWriteReader(IngestConfig()).take_v2(v1.snappy(bytes(damaged)), batcher)
    except BadRequest:
        assert batcher.mark() == (0, (0, 0, 0))


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=60))
def test_any_bytes_are_refused_or_read(body):
    with suppress(BadRequest):
        assert len(message(body)) <= LIMIT


def test_a_small_request_that_spells_out_to_a_huge_one_is_refused_with_the_limit() -> None:
    bomb = request([SeriesV2([("__name__", "a"), ("b", "x" * 10_000)], [(1, 0)]) for _ in range(200)])
    assert len(bomb) < 20_000
    with pytest.raises(BodyTooLarge, match="1048576 bytes with their labels spelled out"):
        message(bomb)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (v1.delimited(4, b"x"), "first symbol is not empty"),
        (v1.delimited(4, b"") + v1.delimited(5, v1.delimited(1, b"\x00\x01")), "symbol that is not there"),
        (v1.delimited(4, b"") + v1.delimited(5, v1.delimited(1, b"\x00")), "name without a value"),
        (v1.delimited(4, b"") + v1.delimited(5, v1.delimited(1, b"\x80")), "malformed"),
        (b"\x22\x05a", "malformed"),
    ],
)
def test_what_is_wrong_with_a_request_is_said(data: bytes, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason):
        message(data)


def rows(batcher: Batcher) -> list[tuple[int, bytes]]:
    batches = [decode_record(record.value).attached for record in batcher.seal(5).records]
    return [(int(batch.kinds[i]), batch.row(i)) for batch in batches for i in range(len(batch))]


def test_metadata_of_series_is_that_of_their_family_and_is_sent_once_an_hour() -> None:
    reader, batcher = RemoteWriteReader(IngestConfig()), Batcher(1, 1000, 3_600_000, None)
    found = [
        SeriesV2([("__name__", name), ("le", str(i))], [(i, 0)], metadata=(kind, "what", "s"))
        for name, kind in (("http_bucket", 3), ("http_sum", 3), ("up_count", 2), ("_sum", 5))
        for i in range(3)
    ]
    body = v1.snappy(request(found))

    def take(now_ms: int) -> set[bytes]:
        batcher.begin(now_ms)
        assert reader.take_v2(body, batcher).n_samples == 12
        return {row for kind, row in rows(batcher) if kind == Kind.METADATA}

    want = {
        b'{"family":"%b","type":"%b","help":"what","unit":"s"}' % pair
        for pair in ((b"http", b"histogram"), (b"up_count", b"gauge"), (b"_sum", b"summary"))
    }
    assert take(10_000_000) == want
    assert take(10_000_001) == set()
    assert take(14_000_000) == want


def test_histograms_and_exemplars_of_version_2_reach_the_log() -> None:
    reader, batcher = RemoteWriteReader(IngestConfig()), Batcher(1, 1000, 3_600_000, None)
    one = SeriesV2([("__name__", "a")], [(7, 0)], [NATIVE.message(5)], [([("trace_id", "ü")], 2.5, 6)])
    taken = reader.take_v2(v1.snappy(request([one])), batcher)
    assert (taken.n_samples, taken.n_histograms, taken.n_exemplars) == (2, 1, 1)
    trace = struct.pack("<d", 2.5) + canonical_labels({"trace_id": "ü"})
    assert sorted(rows(batcher)) == [(Kind.HISTOGRAM, NATIVE.encode()), (Kind.EXEMPLAR, trace)]
    assert batcher.table.ids[0].tobytes() == series_id(canonical_labels({"__name__": "a"}))
