"""A real Prometheus with `remote_read` on Tabor answers queries over what only Tabor has; its chunks are ours."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from random import Random

import httpx
import pytest

from query.remote_chunks import MEDIA_TYPE
from tests.acceptance.test_prometheus import program
from tests.oracles import prometheus_chunk as chunks
from tests.oracles import remote_write as oracle
from tests.oracles.histogram import NativeHistogram
from tests.processes import Process, free_port, running, tabor_run

pytestmark = pytest.mark.acceptance
T0 = 1_790_000_000
QUERIES = [
    "sum by (job) (rate(requests_total[5m]))",
    'requests_total{job=~"a.*", instance!="2"}',
    "max_over_time(requests_total[10m:1m])",
    "count({__name__=~'req.+', job!~'b'})",
]


def prometheus_server(folder: Path, config: object, *flags: str) -> Process:
    port = free_port()
    # JSON is YAML.
    (folder / "prometheus.yml").write_text(json.dumps(config))
    return Process(
        "prometheus",
        [
            program("prometheus", "prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--enable-feature=native-histograms",
            "--log.level=warn",
            *flags,
        ],
        folder,
        port,
    )


def send(server: Process, body: bytes) -> None:
    url = f"http://127.0.0.1:{server.port}/api/v1/write"
    headers = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"}
    httpx.post(url, content=oracle.snappy(body), headers=headers).raise_for_status()


def series_field(labels: dict[str, str], *fields: bytes) -> bytes:
    pairs = sorted((name.encode(), value.encode()) for name, value in labels.items())
    return oracle.delimited(1, b"".join(oracle.label_field(*pair) for pair in pairs) + b"".join(fields))


def histogram_series(labels: dict[str, str], histograms: Sequence[tuple[int, NativeHistogram]]) -> bytes:
    return series_field(labels, *(oracle.delimited(4, one.message(time_ms)) for time_ms, one in histograms))


def growing(n: int, *, is_float: bool = False, reset_at: int = 1 << 30) -> list[tuple[int, NativeHistogram]]:
    """Histograms of a counter, one every 15 s or so, that begins anew once."""
    out = []
    for k in range(n):
        done = k % reset_at + 1
        buckets = tuple(done * (2 + 3 * i) + (done // 3) ** 2 * i for i in range(5))
        parts = buckets[:3], buckets[3:]
        extra = 0.25 if is_float else 0
        count = sum(buckets) + done + 6 * extra
        out.append(
            (
                T0 * 1000 + 15_000 * k + k % 2,
                NativeHistogram(
                    2, count, 1.5 * done**2, 2.0**-128, done + extra, ((-1, 2), (2, 1)),
                    tuple(one + extra for one in parts[0]), ((0, 2),), tuple(one + extra for one in parts[1]),
                    (), 0, is_float,
                ),
            )
        )  # fmt: skip
    return sorted(out, key=lambda pair: pair[0])


def test_prometheus_reads_through_tabor_what_it_does_not_have_itself(tmp_path: Path) -> None:
    tabor = tabor_run(tmp_path)
    config = {"remote_read": [{"url": f"http://127.0.0.1:{tabor.port}/api/v1/read", "read_recent": True}]}
    prometheus = prometheus_server(tmp_path, config)
    series = [
        (
            {"__name__": "requests_total", "job": job, "instance": str(i)},
            [(T0 * 1000 + 15_007 * k, float(k * (i + 1))) for k in range(80)],
        )
        for job in ("a1", "a2", "b")
        for i in range(3)
    ]
    with running(tabor, prometheus):
        tabor.start_and_wait()
        prometheus.start_and_wait()
        send(tabor, oracle.request(series))
        for query in QUERIES:
            asked = {"query": query, "start": T0 + 600, "end": T0 + 1150, "step": 50}
            ours, theirs = (
                server.data("/api/v1/query_range", **asked)["result"] for server in (tabor, prometheus)
            )
            assert len(ours) == len(theirs) > 0, query
            for one, other in zip(ours, theirs, strict=True):
                assert one["metric"] == other["metric"], query
                pairs = zip(one["values"], other["values"], strict=True)
                assert all(a[0] == b[0] and math.isclose(float(a[1]), float(b[1]), rel_tol=1e-9) for a, b in pairs)


def test_streamed_chunks_are_byte_for_byte_those_of_prometheus(tmp_path: Path) -> None:
    tabor = tabor_run(tmp_path)
    prometheus = prometheus_server(tmp_path, {}, "--web.enable-remote-write-receiver")
    random = Random(5)
    floats = {
        "counter": [(15_000 * k, 3.0 * k * k) for k in range(100)],
        "noise": [(15_000 * k + random.randrange(-4000, 4000), random.gauss(0, 1e6)) for k in range(100)],
        "sparse": [(sum(random.sample(range(400_000), 1)) + 450_000 * k, random.random()) for k in range(10)],
        "ended": [(0, 1.5), (15_000, -0.0), (30_000, math.inf), (45_000, chunks.from_bits(0x7FF0000000000002))],
        "constant": [(1000 * k, 7.25) for k in range(110)],
    }
    body = oracle.request(
        [({"__name__": name}, [(T0 * 1000 + t, v) for t, v in samples]) for name, samples in floats.items()]
    )
    body += histogram_series({"__name__": "integers"}, growing(90))
    body += histogram_series({"__name__": "reals"}, growing(90, is_float=True))
    body += histogram_series({"__name__": "reset"}, growing(90, reset_at=30))
    matcher = b"\x08\x02" + oracle.delimited(2, b"__name__") + oracle.delimited(3, b".+")
    times = b"\x08" + oracle.uvarint((T0 - 9000) * 1000) + b"\x10" + oracle.uvarint((T0 + 9000) * 1000)
    asked = oracle.snappy(oracle.delimited(1, times + oracle.delimited(3, matcher)) + b"\x10\x01")
    with running(tabor, prometheus):
        tabor.start_and_wait()
        prometheus.start_and_wait()
        found = []
        for server in (tabor, prometheus):
            send(server, body)
            answer = httpx.post(f"http://127.0.0.1:{server.port}/api/v1/read", content=asked)
            answer.raise_for_status()
            assert answer.headers["content-type"] == MEDIA_TYPE
            found.append(chunks.frames(answer.content))
        ours, theirs = (
            {frame.labels[0][1].decode(): [chunk[2:] for chunk in frame.chunks] for frame in frames}
            for frames in found
        )
        assert list(ours) == list(theirs) == sorted([*floats, "integers", "reals", "reset"])
        for name, stored in ours.items():
            assert [kind for kind, _ in stored] == [kind for kind, _ in theirs[name]], name
            for (_, own), (_, other) in zip(stored, theirs[name], strict=True):
                if name == "reset":
                    # This release does not say of what it reads out of its head that it began anew.
                    own = own[:2] + other[2:3] + own[3:]
                # Prometheus may have begun a byte in which nothing is written.
                assert other in (own, own + b"\0"), name
        assert len(ours["reset"]) == 3
        assert b'remote_reads_total{type="streamed_xor_chunks"} 1.0' in tabor.get("/metrics")[1]
