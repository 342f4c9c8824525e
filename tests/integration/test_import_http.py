"""Back-filling from text over HTTP."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI

from ingest.config import IngestConfig
from ingest.import_http import PATH, router
from ingest.ingestor import Ingestor
from ingest.write_request import PIECE_SAMPLES
from tests.memory_log import MemoryLog
from tests.unit.ingest.logs import batches_of, key_of, own_metrics, samples_of

TEXT = """# HELP http_requests_total How many.
# TYPE http_requests_total counter
http_requests_total{code="200",path="/ü\\"x"} 3 1500
http_requests_total{code="500"} NaN -5
up 1 2000
"""
OPEN_METRICS = """# TYPE requests counter
requests_total{a="1"} 3 12.5 # {trace_id="7"} 2 1.25
# EOF
"""
OPEN = {"content-type": "application/openmetrics-text; version=1.0.0"}


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog(2)


@pytest.fixture
def app(log: MemoryLog) -> Iterator[FastAPI]:
    ingestor = Ingestor(log, IngestConfig(max_body_bytes=1 << 21, max_active_series=1000), metrics=own_metrics())
    ingestor.start()
    app = FastAPI()
    app.include_router(router(ingestor))
    yield app
    assert ingestor.close(60.0)


def post(app: FastAPI, content: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tabor") as client:
            return await client.post(PATH, content=content, headers=headers)

    return asyncio.run(send())


@pytest.mark.parametrize("packed", [False, True])
def test_the_text_format_is_stored_with_its_timestamps(app: FastAPI, log: MemoryLog, packed: bool) -> None:
    content, headers = TEXT.encode(), {}
    if packed:
        content, headers = gzip.compress(content), {"content-encoding": "gzip"}
    assert post(app, content, headers).status_code == 204
    found = samples_of(log)
    ok = {"__name__": "http_requests_total", "code": "200", "path": '/ü"x'}
    assert found[key_of(ok)] == [(1500, 3.0)]
    assert found[key_of({"__name__": "up"})] == [(2000, 1.0)]
    ((time_ms, value),) = found[key_of({"__name__": "http_requests_total", "code": "500"})]
    assert time_ms == -5
    assert value != value
    rows = [batch.attached.row(i) for _, batch in batches_of(log) for i in range(len(batch.attached))]
    assert rows == [b'{"family":"http_requests_total","type":"counter","help":"How many.","unit":""}']


def test_open_metrics_has_seconds_and_exemplars(app: FastAPI, log: MemoryLog) -> None:
    assert post(app, OPEN_METRICS.encode(), OPEN).status_code == 204
    assert samples_of(log) == {key_of({"__name__": "requests_total", "a": "1"}): [(12_500, 3.0)]}
    times = [int(time) for _, batch in batches_of(log) for time in batch.attached.timestamps if time]
    assert times == [1250]


def test_samples_without_a_timestamp_are_of_now(app: FastAPI, log: MemoryLog) -> None:
    assert post(app, b"up 1\n").status_code == 204
    (((time_ms, _),),) = samples_of(log).values()
    assert time_ms > 1_700_000_000_000


def test_an_error_names_its_line_and_what_is_stored_already(app: FastAPI, log: MemoryLog) -> None:
    good = "".join(f'm{{i="{i % 100}"}} 1 {i}\n' for i in range(PIECE_SAMPLES))
    # A family is read to its end before it is sent.
    response = post(app, (good + "other 1 5\nthird{x=1} 1 5\n").encode())
    assert response.status_code == 400
    assert f"line {PIECE_SAMPLES + 2}: " in response.text
    assert f"{PIECE_SAMPLES} samples are stored" in response.text
    assert sum(map(len, samples_of(log).values())) == PIECE_SAMPLES


@pytest.mark.parametrize(
    ("content", "headers", "status", "reason"),
    [
        (b"# TYPE a counter\na_total 1\n", OPEN, 400, "EOF"),
        (b"\xff", {}, 400, "not UTF-8"),
        (b"abc", {"content-encoding": "gzip"}, 400, "not valid gzip"),
        (gzip.compress(b"up 1\n", mtime=0)[:-4], {"content-encoding": "gzip"}, 400, "ends early"),
        (gzip.compress(bytes(1 << 22), mtime=0), {"content-encoding": "gzip"}, 413, "--max-body-bytes"),
        (b" " * (1 << 22), {}, 413, "--max-body-bytes"),
        (b"up 1\n", {"content-encoding": "br"}, 415, "br"),
        (b"up 1\nup x 4\n", {}, 400, "line 2"),
    ],
)
def test_what_cannot_be_read_is_refused(
    app: FastAPI, content: bytes, headers: dict[str, str], status: int, reason: str
) -> None:
    response = post(app, content, headers)
    assert response.status_code == status, response.text
    assert reason in response.text
