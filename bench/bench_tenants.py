"""What a tenant that floods does to another one: writes and queries of `tabor run --tenancy required`.

    python -m bench.bench_tenants [--rounds N] [--small]

The victim sends small writes over two connections, or asks a query of its own over and over; each waits for its
answer. It does so alone, and while another tenant has 16 connections full of large writes, or of queries that
take long. Both clients run beside the server, on the same cores. Each figure is the median of the rounds, which
alternate; `ratio` is with the flood by alone. The last line is a checksum of what the victim sent.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import multiprocessing
import statistics
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench import servers
from bench.requests import compress, encode_labels, encode_sample
from bench.servers import Server

START_MS = 1_790_000_000_000
STEP_MS = 15_000
FLOODING = 16
WRITE = "/api/v1/write"
_HEADERS = {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy"}
HEAVY = "sum by (job) (rate({__name__=~'metric_.*'}[5m]))"
LIGHT = "sum(rate(metric_1[5m]))"


class Size(NamedTuple):
    """Of the victim: series, requests, queries. Of the flood: series of each of its requests."""

    n_series: int
    n_requests: int
    n_queries: int
    flood_series: int
    warm_s: float


class Call(NamedTuple):
    method: str
    path: str
    body: bytes = b""


class Figures(NamedTuple):
    """Of the victim's calls: a second, and ms of the median and of the slowest twentieth."""

    per_s: float
    median_ms: float
    p95_ms: float


FULL = Size(500, 300, 150, 2_000, 1.0)
SMALL = Size(50, 10, 5, 500, 0.1)


def writes(n_series: int, n_steps: int) -> list[Call]:
    """One request for each step of some counters."""
    labels = [
        encode_labels({"__name__": f"metric_{i % 10}", "instance": f"host-{i // 10}", "job": f"job-{i % 7}"})
        for i in range(n_series)
    ]
    steps = np.cumsum(np.random.default_rng(1).integers(0, 100, (n_steps, n_series)), axis=0).tolist()
    return [
        Call(
            "POST",
            WRITE,
            compress(
                [
                    one + encode_sample(value, START_MS + i * STEP_MS)
                    for one, value in zip(labels, row, strict=True)
                ]
            ),
        )
        for i, row in enumerate(steps)
    ]


def query(text: str, n_steps: int) -> Call:
    times = {"start": START_MS / 1000, "end": (START_MS + n_steps * STEP_MS) / 1000, "step": 15}
    return Call("GET", f"/api/v1/query_range?{urllib.parse.urlencode({'query': text, **times})}")


def call_all(port: int, tenant: str, calls: Sequence[Call], n_connections: int) -> Figures:
    """Make all calls, each connection one after another."""
    seconds: list[float] = []

    def run(mine: Sequence[Call]) -> None:
        for took_s in _calls(port, tenant, mine, None):
            seconds.append(took_s)

    began = time.perf_counter()
    threads = [threading.Thread(target=run, args=(calls[i::n_connections],)) for i in range(n_connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total_s = time.perf_counter() - began
    if len(seconds) < len(calls):
        raise RuntimeError(f"only {len(seconds)} of {len(calls)} calls were answered")
    slowest = sorted(seconds)[int(0.95 * len(seconds))]
    return Figures(len(calls) / total_s, 1e3 * statistics.median(seconds), 1e3 * slowest)


def _calls(port: int, tenant: str, calls: Sequence[Call], stop: threading.Event | None) -> Iterator[float]:
    """How long each call took; with an event, over and over until it is set, and refusals are part of the game."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=120)) as connection:
        while True:
            for one in calls:
                began = time.perf_counter()
                connection.request(one.method, one.path, one.body, {**_HEADERS, "X-Scope-OrgID": tenant})
                response = connection.getresponse()
                text = response.read()
                if stop is None and response.status >= 300:
                    raise RuntimeError(f"{response.status}: {text[:300]!r}")
                if stop is not None and stop.is_set():
                    return
                if response.status in (429, 503):
                    time.sleep(0.05)
                yield time.perf_counter() - began
            if stop is None:
                return


def _flood(port: int, calls: Sequence[Call]) -> None:
    """The flooding tenant's process, until it is ended."""
    stop = threading.Event()

    def run(first: int) -> None:
        for _ in _calls(port, "flood", [*calls[first:], *calls[:first]], stop):
            pass

    threads = [threading.Thread(target=run, args=(i % len(calls),), daemon=True) for i in range(FLOODING)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextmanager
def flood(port: int, calls: Sequence[Call], warm_s: float) -> Iterator[None]:
    """While the body runs, another tenant makes these calls as fast as it is let."""
    process = multiprocessing.get_context("spawn").Process(target=_flood, args=(port, calls), daemon=True)
    process.start()
    try:
        time.sleep(warm_s + 0.5)
        yield
    finally:
        process.terminate()
        process.join()


def bench(size: Size, rounds: int) -> str:
    """Print a line for writes and for queries; returns the checksum."""
    mine = writes(size.n_series, size.n_requests)
    theirs = writes(size.flood_series, 10)
    light, heavy = query(LIGHT, min(size.n_requests, 240)), query(HEAVY, 40)
    found: dict[str, list[Figures]] = {}
    with tempfile.TemporaryDirectory(prefix="tabor-bench-") as scratch:
        server = _server(Path(scratch))
        server.start()
        try:
            for calls, tenant in ((mine, "victim"), (theirs, "flood")):
                call_all(server.port, tenant, calls, 1)
            call_all(server.port, "victim", [light], 1)
            for _ in range(rounds):
                for kind, calls, disturbing, connections in (
                    ("writes", mine, theirs, 2),
                    ("queries", [light] * size.n_queries, [heavy], 1),
                ):
                    alone = call_all(server.port, "victim", calls, connections)
                    with flood(server.port, disturbing, size.warm_s):
                        beside = call_all(server.port, "victim", calls, connections)
                    found.setdefault(f"{kind} alone", []).append(alone)
                    found.setdefault(f"{kind} flooded", []).append(beside)
        finally:
            server.stop()
    print(f"{'calls':<18}{'a second':>10}{'median ms':>12}{'p95 ms':>10}")
    for kind in ("writes", "queries"):
        rows = {
            name: Figures(*map(statistics.median, zip(*found[f"{kind} {name}"], strict=True)))
            for name in ("alone", "flooded")
        }
        for name, row in rows.items():
            print(f"{kind + ' ' + name:<18}{row.per_s:>10.1f}{row.median_ms:>12.2f}{row.p95_ms:>10.2f}")
        slower = rows["alone"].per_s / rows["flooded"].per_s
        ratios = [one / other for one, other in zip(rows["flooded"][1:], rows["alone"][1:], strict=True)]
        print(f"{kind + ' ratio':<18}{slower:>10.2f}{ratios[0]:>12.2f}{ratios[1]:>10.2f}", flush=True)
    checksum = hashlib.blake2b(digest_size=8)
    for call in mine:
        checksum.update(call.body)
    return checksum.hexdigest()


def _server(folder: Path) -> Server:
    server = servers.tabor(folder)
    server.command = [*server.command, "--tenancy", "required"]
    return server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="a few requests, to see that it works")
    arguments = parser.parse_args()
    print(f"checksum {bench(SMALL, 1) if arguments.small else bench(FULL, arguments.rounds)}")


if __name__ == "__main__":
    main()
