"""Remote read over a store in memory, against the slow parser of messages."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator
from dataclasses import replace

import cramjam
import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from common.errors import CallerError
from query.config import QueryConfig
from query.http import router
from query.remote_read import histogram_message, parse_request
from query.service import QueryService
from tests.memory_store import MemoryStore
from tests.oracles import prometheus_chunk as chunks
from tests.oracles import remote_write as oracle
from tests.oracles.histogram import NativeHistogram

INTEGERS = NativeHistogram(1, 6, 2.5, 0.1, 2, ((-1, 1), (1, 1)), (1, 2), ((3, 1),), (1,), (), 2, False)
FLOATS = replace(INTEGERS, is_float=True, hint=0)
CUSTOM = NativeHistogram(-53, 3, 2.5, positive_spans=((0, 2),), positive=(1, 2), bounds=(0.5,), is_float=False)
STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]


def matcher(kind: int, name: str, value: str) -> bytes:
    return b"\x08" + bytes((kind,)) + oracle.delimited(2, name.encode()) + oracle.delimited(3, value.encode())


def query(start: int, end: int, *matchers: bytes) -> bytes:
    times = b"\x08" + oracle.uvarint(start % (1 << 64)) + b"\x10" + oracle.uvarint(end % (1 << 64))
    return oracle.delimited(1, times + b"".join(oracle.delimited(3, one) for one in matchers))


@pytest.fixture
def app() -> Iterator[FastAPI]:
    store = MemoryStore()
    store.add({"__name__": "up", "job": "b"}, [(-5, 1.5), (0, 0.0), (7, STALE)])
    store.add({"__name__": "up", "job": "a"}, [(100, 2.0), (200, 3.0)])
    store.add({"__name__": "down"}, [(100, INTEGERS.encode()), (150, 4.0), (200, CUSTOM.encode())])
    service = QueryService(store, QueryConfig(max_samples=6))
    app = FastAPI()
    app.include_router(router(service, "0"))
    yield app
    service.close()


def read(app: FastAPI, body: bytes, path: str = "/api/v1/read") -> httpx.Response:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tabor") as client:
            return await client.post(path, content=body)

    return asyncio.run(send())


def results(response: httpx.Response) -> list[list[oracle.Series]]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-protobuf"
    message = bytes(cramjam.snappy.decompress_raw(response.content))
    return [
        oracle.parse(content) for _, content in oracle.fields(message, known=(1,)) if isinstance(content, bytes)
    ]


def bits(value: float) -> int:
    return int(struct.unpack("<Q", struct.pack("<d", value))[0])


@pytest.mark.parametrize("path", ["/api/v1/read", "/read"])
def test_each_query_has_its_series_in_order_with_all_samples_of_the_range(app: FastAPI, path: str) -> None:
    body = query(-5, 7, matcher(0, "__name__", "up")) + query(0, 100, matcher(2, "job", "a|c"))
    first, second = results(read(app, oracle.snappy(body), path))
    assert [series.labels for series in first] == [[(b"__name__", b"up"), (b"job", b"b")]]
    assert first[0].samples == [(-5, bits(1.5)), (0, 0), (7, bits(STALE))]
    assert [(series.labels[1][1], series.samples) for series in second] == [(b"a", [(100, bits(2.0))])]


@pytest.mark.parametrize(("kind", "value", "found"), [(0, "a", 1), (1, "a", 1), (2, "a|b", 2), (3, "a|b", 0)])
def test_all_types_of_matchers_are_known(app: FastAPI, kind: int, value: str, found: int) -> None:
    body = query(-5, 300, matcher(0, "__name__", "up"), matcher(kind, "job", value))
    assert len(results(read(app, oracle.snappy(body)))[0]) == found


def test_histograms_go_beside_the_floats_of_their_series(app: FastAPI) -> None:
    ((series,),) = results(read(app, oracle.snappy(query(0, 300, matcher(0, "__name__", "down")))))
    assert series.samples == [(150, bits(4.0))]
    assert series.histograms == [
        histogram_message(INTEGERS.encode(), 100),
        histogram_message(CUSTOM.encode(), 200),
    ]


@pytest.mark.parametrize("histogram", [INTEGERS, FLOATS, CUSTOM])
def test_a_histogram_is_written_as_remote_write_would_send_it(histogram: NativeHistogram) -> None:
    def content(message: bytes) -> list[tuple[int, object]]:
        fields = [(number, content) for number, _, content in oracle.raw_fields(message)]
        zero = {5, 6} if histogram is CUSTOM else set()
        return sorted(((n, c) for n, c in fields if n not in zero), key=lambda field: field[0])

    assert content(histogram_message(histogram.encode(), -7)) == content(histogram.message(-7))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not"),
        (b"\x05abc", "snappy"),
        (b"\xff\xff\xff\xff\x0f", "bytes decompressed"),
        (oracle.snappy(b"\x0a\x05a"), "not a prometheus.ReadRequest"),
        (oracle.snappy(query(0, 1, matcher(9, "a", "b"))), "unknown type 9"),
        (oracle.snappy(query(0, 1) + b"\x10\x07"), "none of types [7]"),
        (oracle.snappy(query(0, 1) + b"\x12\x02\x09\x80"), "not a prometheus.ReadRequest"),
    ],
)
def test_what_is_wrong_with_a_request_is_said(app: FastAPI, body: bytes, reason: str) -> None:
    response = read(app, body)
    assert response.status_code == 400
    assert reason in response.json()["error"]


@pytest.mark.parametrize(
    ("accepted", "is_streamed"),
    [
        (b"", False),
        (b"\x10\x00", False),
        (b"\x10\x01", True),
        (b"\x10\x01\x10\x00", True),
        (b"\x10\x00\x10\x01", False),
        (b"\x12\x02\x01\x00", True),
        (b"\x12\x04\x80\x01\x07\x01", True),
    ],
)
def test_the_answer_is_of_the_first_accepted_type_that_there_is(
    app: FastAPI, accepted: bytes, is_streamed: bool
) -> None:
    kind = "streamed_xor_chunks" if is_streamed else "samples"
    before = REGISTRY.get_sample_value("tabor_query_remote_reads_total", {"type": kind}) or 0
    response = read(app, oracle.snappy(query(-5, 7, matcher(0, "__name__", "up")) + accepted))
    assert response.status_code == 200
    media_type = response.headers["content-type"]
    if is_streamed:
        assert media_type == "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse"
        (frame,) = chunks.frames(response.content)
        assert frame.labels == [(b"__name__", b"up"), (b"job", b"b")]
        assert [(t, bits(v)) for t, v in frame.samples()] == [(-5, bits(1.5)), (0, 0), (7, bits(STALE))]  # type: ignore[arg-type]
    else:
        assert media_type == "application/x-protobuf"
    assert REGISTRY.get_sample_value("tabor_query_remote_reads_total", {"type": kind}) == before + 1


def test_streamed_series_are_in_order_and_carry_the_number_of_their_query(app: FastAPI) -> None:
    body = query(0, 99, matcher(0, "__name__", "up")) + query(-5, 100, matcher(0, "__name__", "up")) + b"\x10\x01"
    found = chunks.frames(read(app, oracle.snappy(body)).content)
    assert [(frame.query, frame.labels[1][1], len(frame.samples())) for frame in found] == [
        (0, b"b", 2), (1, b"a", 1), (1, b"b", 3),
    ]  # fmt: skip


def test_streamed_histograms_of_all_kinds_are_among_the_floats_of_their_series(app: FastAPI) -> None:
    body = query(0, 300, matcher(0, "__name__", "down")) + b"\x10\x01"
    (frame,) = chunks.frames(read(app, oracle.snappy(body)).content)
    assert frame.samples() == [(100, INTEGERS), (150, 4.0), (200, CUSTOM)]
    assert [chunk[2] for chunk in frame.chunks] == [chunks.HISTOGRAM, chunks.XOR, chunks.HISTOGRAM]


@pytest.mark.parametrize("accepted", [b"\x10\x00", b"\x10\x01"])
def test_an_answer_that_is_too_large_is_refused_before_it_is_sent(accepted: bytes) -> None:
    noise = np.random.default_rng(7).random(400_000).tolist()
    store = MemoryStore([({"__name__": "m"}, list(enumerate(noise)))])
    for max_bytes, status in ((1 << 30, 200), (2_000_000, 422), (100, 422)):
        service = QueryService(store, QueryConfig(max_response_bytes=max_bytes))
        app = FastAPI()
        app.include_router(router(service, "0"))
        response = read(app, oracle.snappy(query(0, 1 << 40, matcher(0, "__name__", "m")) + accepted))
        assert response.status_code == status
        if status == 422:
            assert response.json()["errorType"] == "execution"
            assert f"more than {max_bytes} bytes" in response.json()["error"]
            assert "--query-max-response-bytes" in response.json()["error"]
        service.close()


def test_all_queries_together_may_not_select_more_samples_than_one_may(app: FastAPI) -> None:
    response = read(app, oracle.snappy(query(-5, 300) + query(-5, 300)))
    assert response.status_code == 422
    assert "more than 6 samples" in response.json()["error"]
    assert "--query-max-samples" in response.json()["error"]


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=40))
def test_any_bytes_are_a_request_or_an_error_of_the_caller(body: bytes) -> None:
    for data in (body, oracle.snappy(body)):
        try:
            parse_request(data)
        except CallerError as error:
            assert str(error)  # noqa: PT017
