"""Remote write over HTTP, through the application and once through a real server."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from ingest.config import IngestConfig
from ingest.http import in_front_of, router
from ingest.ingestor import Ingestor
from tests.memory_log import MemoryLog
from tests.oracles import remote_write as oracle
from tests.oracles.histogram import NativeHistogram
from tests.oracles.remote_write_v2 import SeriesV2
from tests.oracles.remote_write_v2 import request as request_v2
from tests.unit.ingest.logs import batches_of, key_of, own_metrics, samples_of

UP = {"__name__": "up", "job": "node"}
HEADERS = {"content-type": "application/x-protobuf", "content-encoding": "snappy"}
ONE = oracle.snappy(oracle.request([(UP, [(1, 1.0)])]))
TIMEOUT_S = 60.0

Post = Callable[..., httpx.Response]


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog(4)


@pytest.fixture
def gate() -> list[str | None]:
    """What the gate says; a test may change it."""
    return [None]


@pytest.fixture
def ingestor(log: MemoryLog, gate: list[str | None]) -> Iterator[Ingestor]:
    config = IngestConfig(
        max_body_bytes=4096, max_label_value_bytes=64, max_active_series=10, max_queued_requests=3
    )
    ingestor = Ingestor(log, config, gate=lambda: gate[0], metrics=own_metrics())
    ingestor.start()
    yield ingestor
    log.release()
    assert ingestor.close(TIMEOUT_S)


@pytest.fixture
def app(ingestor: Ingestor) -> FastAPI:
    app = FastAPI()
    app.include_router(router(ingestor))
    return app


@pytest.fixture
def post(app: FastAPI) -> Post:
    def post(
        content: bytes | AsyncIterator[bytes],
        *,
        path: str = "/api/v1/write",
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        async def send() -> httpx.Response:
            async with client_of(app) as client:
                return await client.post(path, content=content, headers=HEADERS if headers is None else headers)

        return asyncio.run(send())

    return post


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://ingest", timeout=httpx.Timeout(TIMEOUT_S)
    )


@pytest.mark.parametrize("path", ["/api/v1/write", "/write"])
def test_a_write_is_answered_204_and_is_in_the_log(post: Post, log: MemoryLog, path: str) -> None:
    response = post(ONE, path=path)
    assert (response.status_code, response.content) == (204, b"")
    assert samples_of(log) == {key_of(UP): [(1, 1.0)]}


@pytest.mark.parametrize(
    ("content_type", "encoding"),
    [
        ("application/x-protobuf;proto=prometheus.WriteRequest", "snappy"),
        ('Application/X-Protobuf; proto="prometheus.WriteRequest"', "Snappy"),
        ("application/x-protobuf", ""),
        ("", "snappy"),
    ],
)
def test_spellings_of_remote_write_1_are_accepted(post: Post, content_type: str, encoding: str) -> None:
    headers = {"content-type": content_type, "content-encoding": encoding}
    assert post(ONE, headers={name: value for name, value in headers.items() if value}).status_code == 204


V2 = {"content-type": "application/x-protobuf;proto=io.prometheus.write.v2.Request", "content-encoding": "snappy"}


def test_version_2_is_answered_with_how_much_was_written(post: Post) -> None:
    native = NativeHistogram(1, 5, 2.5, 0.1, 2, ((-1, 1), (1, 1)), (1, 2), is_float=False)
    good = SeriesV2([("__name__", "a")], [(7, 0), (8, 0)], [native.message(5)], [([("id", "1")], 2.5, 6)])
    bad = SeriesV2([("b", "a")], [(7, 0)])
    for series, status, counts in (([good], 204, "211"), ([good, bad], 400, "211"), ([], 204, "000")):
        response = post(oracle.snappy(request_v2(series)), headers=V2)
        assert response.status_code == status
        written = [f"x-prometheus-remote-write-{kind}-written" for kind in ("samples", "histograms", "exemplars")]
        assert "".join(response.headers[name] for name in written) == counts
    assert "no metric name" in post(oracle.snappy(request_v2([bad])), headers=V2).text
    assert post(b"\x00garbage", headers=V2).headers[written[0]] == "0"


@pytest.mark.parametrize(
    ("content_type", "encoding", "message"),
    [
        ("application/json", "snappy", "Content-Type is application/json"),
        (
            "application/x-protobuf;proto=io.prometheus.write.v3.Request",
            "snappy",
            "io.prometheus.write.v3.Request",
        ),
        ("application/x-protobuf", "gzip", "Content-Encoding is gzip"),
    ],
)
def test_other_types_are_answered_415(post: Post, content_type: str, encoding: str, message: str) -> None:
    response = post(ONE, headers={"content-type": content_type, "content-encoding": encoding})
    assert response.status_code == 415
    assert message in response.text


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"not snappy", 400, "snappy"),
        (oracle.snappy(b"\x0a\x05\x0a"), 400, "truncated or malformed"),
        (oracle.snappy(oracle.request([({"job": "x"}, [(1, 1.0)])])), 400, '{job="x"}: it has no metric name'),
        (oracle.snappy(bytes(4097)), 413, "--max-body-bytes"),
        (bytes(6000), 413, "--max-body-bytes"),
        (oracle.snappy(oracle.request([({"__name__": "x" * 65}, [(1, 1.0)])])), 422, "max_label_value_bytes"),
        (oracle.snappy(oracle.request([({"__name__": f"m{i}"}, [(1, 1.0)]) for i in range(11)])), 429, '"m10"}'),
    ],
)
def test_bad_requests_are_answered_with_the_reason_as_text(
    post: Post, body: bytes, status: int, message: str
) -> None:
    response = post(body)
    assert response.status_code == status
    assert message in response.text
    assert response.headers["content-type"].startswith("text/plain")


def test_a_body_without_a_length_is_cut_off_at_the_limit(post: Post) -> None:
    sent = []

    async def endless() -> AsyncIterator[bytes]:
        while True:
            sent.append(1)
            yield bytes(1000)
            assert len(sent) < 100, "the body is read far beyond its limit"

    assert post(endless()).status_code == 413


def test_an_empty_write_is_answered_at_once(post: Post, log: MemoryLog) -> None:
    log.hold()
    assert post(oracle.snappy(b"")).status_code == 204
    assert not batches_of(log)


def test_a_log_that_fails_is_answered_503_with_retry_after(app: FastAPI, log: MemoryLog) -> None:
    async def send() -> httpx.Response:
        log.hold()
        async with client_of(app) as client:
            pending = asyncio.create_task(client.post("/write", content=ONE, headers=HEADERS))
            await until(lambda: bool(log._held))
            assert not pending.done()
            log.fail("the broker is gone")
            return await pending

    response = asyncio.run(send())
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1
    assert "the broker is gone" in response.text
    assert not batches_of(log)


def test_a_full_queue_is_answered_503_and_the_others_are_stored(app: FastAPI, log: MemoryLog) -> None:
    async def send() -> list[httpx.Response]:
        log.hold()
        async with client_of(app) as client:
            tasks = [
                asyncio.create_task(client.post("/write", content=large(i), headers=HEADERS)) for i in range(200)
            ]
            await until(lambda: any(task.done() for task in tasks))
            log.release()
            return await asyncio.gather(*tasks)

    def large(i: int) -> bytes:
        return oracle.snappy(oracle.request([(UP, [(i, 1.0)])]))

    responses = asyncio.run(send())
    assert {response.status_code for response in responses} == {204, 503}
    assert all(response.headers["retry-after"] for response in responses if response.status_code == 503)
    stored = {time_ms for time_ms, _ in samples_of(log)[key_of(UP)]}
    assert stored == {i for i, response in enumerate(responses) if response.status_code == 204}


def test_a_closed_gate_is_answered_503_with_its_reason(post: Post, gate: list[str | None]) -> None:
    gate[0] = "the disk is full"
    response = post(ONE)
    assert response.status_code == 503
    assert "the disk is full" in response.text
    assert response.headers["retry-after"]


def test_requests_are_counted_by_status(post: Post, ingestor: Ingestor) -> None:
    post(ONE)
    post(b"not snappy")
    assert ingestor.metrics.requests.labels("204")._value.get() == 1
    assert ingestor.metrics.requests.labels("400")._value.get() == 1


def test_an_application_behind_remote_write_gets_the_rest(ingestor: Ingestor, log: MemoryLog) -> None:
    behind = FastAPI()

    @behind.get("/other")
    def other() -> str:
        return "the rest"

    both = in_front_of(behind, ingestor)

    async def send() -> list[int]:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(both), base_url="http://ingest", timeout=httpx.Timeout(TIMEOUT_S)
        ) as client:
            return [
                (await client.post("/api/v1/write", content=ONE, headers=HEADERS)).status_code,
                (await client.get("/api/v1/write")).status_code,
                (await client.get("/other")).status_code,
            ]

    assert asyncio.run(send()) == [204, 404, 200]
    assert samples_of(log) == {key_of(UP): [(1, 1.0)]}


def test_many_clients_of_a_real_server_get_what_they_were_acknowledged(app: FastAPI, log: MemoryLog) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, args=([sock],))
    thread.start()
    deadline = time.monotonic() + TIMEOUT_S
    while not server.started:
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)
    url = f"http://127.0.0.1:{sock.getsockname()[1]}/api/v1/write"

    async def send() -> list[int]:
        async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:

            async def one(i: int) -> int:
                data = oracle.snappy(oracle.request([(UP | {"i": str(i % 5)}, [(i, float(i))])]))
                while (response := await client.post(url, content=data, headers=HEADERS)).status_code == 503:
                    await asyncio.sleep(0)
                return response.status_code

            return await asyncio.gather(*(one(i) for i in range(60)))

    try:
        assert asyncio.run(send()) == [204] * 60
    finally:
        server.should_exit = True
        thread.join(TIMEOUT_S)
        sock.close()
    got = samples_of(log)
    assert {time_ms for samples in got.values() for time_ms, _ in samples} == set(range(60))


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.001)
