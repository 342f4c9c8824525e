"""OTLP over HTTP, through the application to the log."""

from __future__ import annotations

import asyncio
import gzip
import random
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from common.protobuf import fields
from ingest.config import IngestConfig
from ingest.ingestor import Ingestor
from ingest.otlp_http import PATH, router
from ingest.write_request import PIECE_SAMPLES
from tests.memory_log import MemoryLog
from tests.unit.ingest.logs import key_of, own_metrics, samples_of
from tests.unit.ingest.otlp import (
    OF_SERVICE,
    SERVICE,
    attributes,
    counter,
    exponential,
    gauge,
    histogram,
    point,
    request,
    stored,
    summary,
)

PROTOBUF = {"content-type": "application/x-protobuf"}
GOOD = request(gauge("m", point(5, {"a": "b"}, asInt=1)), resource=SERVICE)
DELTA = counter("d", point(1, asInt=1), point(2, asInt=1), temporality=1)


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog(2)


@pytest.fixture
def gate() -> list[str | None]:
    """What the gate says; a test may change it."""
    return [None]


@pytest.fixture
def ingestor(log: MemoryLog, gate: list[str | None]) -> Iterator[Ingestor]:
    config = IngestConfig(
        max_body_bytes=1 << 21, max_active_series=20, max_label_value_bytes=64, max_samples_per_request=50_000
    )
    ingestor = Ingestor(log, config, gate=lambda: gate[0], metrics=own_metrics())
    ingestor.start()
    yield ingestor
    assert ingestor.close(60.0)


@pytest.fixture
def app(ingestor: Ingestor) -> FastAPI:
    app = FastAPI()
    app.include_router(router(ingestor))
    return app


def post(app: FastAPI, *contents: bytes, headers: dict[str, str] | None = None) -> list[httpx.Response]:
    """The answers to bodies that are sent one after the other."""

    async def send() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tabor") as client:
            used = PROTOBUF if headers is None else headers
            return [await client.post(PATH, content=content, headers=used) for content in contents]

    return asyncio.run(send())


def partial(response: httpx.Response) -> tuple[int, str]:
    """Refused data points and the reason in an answer that says that the rest is stored."""
    assert response.status_code == 200, response.content
    assert response.headers["content-type"] == "application/x-protobuf"
    answer = ExportMetricsServiceResponse.FromString(response.content)
    return answer.partial_success.rejected_data_points, answer.partial_success.error_message


def reason(response: httpx.Response) -> str:
    """The message of a google.rpc.Status, which has no code."""
    ((number, _, text),) = fields(response.content)
    assert number == 2
    assert isinstance(text, bytes)
    return text.decode()


@pytest.mark.parametrize("packed", [False, True])
def test_a_request_is_stored_and_the_answer_is_empty(app: FastAPI, log: MemoryLog, packed: bool) -> None:
    content, headers = GOOD.SerializeToString(), dict(PROTOBUF)
    if packed:
        content, headers["content-encoding"] = gzip.compress(content), "gzip"
    (response,) = post(app, content, headers=headers)
    assert (response.status_code, response.content) == (200, b"")
    assert samples_of(log) == {key_of({"__name__": "m", "a": "b", **OF_SERVICE}): [(5, 1.0)]}


def test_an_empty_request_is_a_good_one(app: FastAPI) -> None:
    (response,) = post(app, b"")
    assert (response.status_code, response.content) == (200, b"")


def test_what_is_refused_is_counted_and_named_and_the_rest_is_stored(app: FastAPI, log: MemoryLog) -> None:
    (response,) = post(app, request(DELTA, gauge("good", point(1, asInt=1))).SerializeToString())
    n_refused, message = partial(response)
    assert n_refused == 2
    assert message.startswith("metric 'd' has delta temporality; only cumulative")
    assert message.endswith("; 2 data points refused, the others stored")
    assert list(samples_of(log)) == [key_of({"__name__": "good"})]


def test_a_warning_refuses_no_points(app: FastAPI) -> None:
    (response,) = post(app, request(gauge("none"), gauge("good", point(1, asInt=1))).SerializeToString())
    assert partial(response) == (0, "metric 'none' has no data points; all data points stored")


def test_series_that_break_a_limit_are_refused_as_in_remote_write(app: FastAPI, log: MemoryLog) -> None:
    long = point(1, {"a": "x" * 65}, count=3, explicitBounds=[1, 2], bucketCounts=[1, 1, 1])
    (response,) = post(app, request(histogram("h", long), gauge("g", point(1, asInt=1))).SerializeToString())
    n_refused, message = partial(response)
    # Its four series are one data point, and one more can be refused at most.
    assert n_refused == 2
    assert "max_label_value_bytes" in message
    assert list(samples_of(log)) == [key_of({"__name__": "g"})]


def test_too_many_series_may_be_sent_again_if_nothing_was_stored(app: FastAPI, log: MemoryLog) -> None:
    full = request(gauge("full", *(point(1, {"i": str(i)}, asInt=1) for i in range(20))))
    more = request(gauge("more", point(1, asInt=1)))
    first, second, third = post(
        app,
        full.SerializeToString(),
        more.SerializeToString(),
        full.SerializeToString() + more.SerializeToString(),
    )
    assert partial(first) == (0, "")
    assert second.status_code == 429
    assert "--max-active-series" in reason(second)
    assert partial(third)[0] == 1
    assert len(samples_of(log)) == 20


def test_nothing_stored_is_no_success(app: FastAPI) -> None:
    (response,) = post(app, request(DELTA, resource={**SERVICE, "host.name": "h"}).SerializeToString())
    assert response.status_code == 400
    assert "'d' has delta temporality" in reason(response)
    assert reason(response).endswith("; nothing stored")


def test_pieces_before_a_limit_stay_and_are_counted(app: FastAPI, log: MemoryLog) -> None:
    content = request(gauge("m", *(point(k, asInt=k) for k in range(50_001)))).SerializeToString()
    (response,) = post(app, content)
    assert response.status_code == 413
    assert "max_samples_per_request" in reason(response)
    n_stored = sum(map(len, samples_of(log).values()))
    assert n_stored == 50_000 // PIECE_SAMPLES * PIECE_SAMPLES
    assert f"; {n_stored} samples are stored" in reason(response)


def test_a_closed_gate_is_answered_with_when_to_come_again(app: FastAPI, gate: list[str | None]) -> None:
    gate[0] = "the disk is full"
    (response,) = post(app, GOOD.SerializeToString())
    assert response.status_code == 503
    assert response.headers["retry-after"] == "10"
    assert "the disk is full" in reason(response)


@pytest.mark.parametrize(
    ("content", "headers", "status", "expected"),
    [
        (b"{}", {"content-type": "application/json"}, 415, "application/json; application/x-protobuf is expected"),
        (b"", {}, 415, "missing"),
        (b"", {**PROTOBUF, "content-encoding": "zstd"}, 415, "zstd; gzip or none"),
        (b"\xff", PROTOBUF, 400, "not an ExportMetricsServiceRequest"),
        (b"abc", {**PROTOBUF, "content-encoding": "gzip"}, 400, "not valid gzip"),
        (gzip.compress(b"", mtime=0)[:-1], {**PROTOBUF, "content-encoding": "gzip"}, 400, "ends early"),
        (gzip.compress(b"", mtime=0) * 2, {**PROTOBUF, "content-encoding": "gzip"}, 400, "follows its end"),
        (
            gzip.compress(bytes(1 << 22), mtime=0),
            {**PROTOBUF, "content-encoding": "gzip"},
            413,
            "--max-body-bytes",
        ),
        (bytes(1 << 22), PROTOBUF, 413, "--max-body-bytes"),
        (b"\x0a\x00" * (1 << 19), PROTOBUF, 413, "524288 messages"),
    ],
)
def test_what_cannot_be_read_is_refused(
    app: FastAPI, log: MemoryLog, content: bytes, headers: dict[str, str], status: int, expected: str
) -> None:
    (response,) = post(app, content, headers=headers)
    assert response.status_code == status, response.content
    assert expected in reason(response)
    assert samples_of(log) == {}


FULL = request(
    gauge("g", point(1, {"a": "b", "l": {"arrayValue": {"values": [{"intValue": 1}]}}}, asDouble=1), unit="By"),
    counter("c", point(2, asInt=3, exemplars=[{"asInt": 1, "filteredAttributes": attributes({"x": "y"})}])),
    histogram("h", point(3, count=3, sum=2, explicitBounds=[1, 2], bucketCounts=[1, 1, 1])),
    exponential("e", point(4, count=3, scale=9, positive={"offset": -3, "bucketCounts": [1, 0, 2]})),
    summary("s", point(5, count=1, sum=2, quantileValues=[{"quantile": 0.5, "value": 3}])),
    resource={**SERVICE, "host.name": "h"},
).SerializeToString()


def test_a_request_cut_anywhere_is_stored_in_part_or_refused(app: FastAPI) -> None:
    responses = post(app, *(FULL[:end] for end in range(len(FULL) + 1)))
    assert {response.status_code for response in responses} <= {200, 400, 429}
    # A cut through the only resource is never a message.
    assert [response.status_code for response in responses[1:-1]] == [400] * (len(FULL) - 1)
    assert partial(responses[-1]) == (0, "")


def test_flipped_bits_are_never_our_fault(app: FastAPI, log: MemoryLog) -> None:
    random_bits = random.Random(7)
    bodies = []
    for _ in range(1500):
        body = bytearray(FULL)
        for _ in range(random_bits.randint(1, 3)):
            body[random_bits.randrange(len(body))] ^= 1 << random_bits.randrange(8)
        bodies.append(bytes(body))
    statuses = {response.status_code for response in post(app, *bodies)}
    assert statuses <= {200, 400, 413, 422, 429}
    assert 200 in statuses
    assert stored(log).samples
