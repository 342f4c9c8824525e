"""Large answers over HTTP: what the whole matrix costs, against a small answer of the same computation.

    python -m bench.bench_json --http [--small]

Servers with 10,000 counters of each name, a range query of 301 steps: count() of the matrix, and the matrix, and
what the second takes more than the first. Each is asked for once before, so that caches are warm, and then in
turns; seconds until the last byte has been read are medians, CPU seconds are the server's, means. Besides `tabor
run` these are the peers that are installed, and one that computes nothing and sends the same bytes again and
again. The last line is a checksum of Tabor's matrices.
"""

from __future__ import annotations

import hashlib
import socket
import statistics
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bench.requests import Request, Template, encode_labels
from bench.sender import send
from bench.servers import SERVERS, Server

START_MS, STEP_MS = 1_790_000_000_000, 15_000
N_STEPS, WINDOW_STEPS = 301, 20
QUERIES = ("whole", "decimals", "rate(whole[5m])", "rate(decimals[5m])")
_READ_BYTES = 1 << 20


def requests_of(n_series: int) -> list[Request]:
    """Counters of two names: steps of whole numbers, and of hundredths."""
    random = np.random.default_rng(5)
    times = START_MS + np.arange(-WINDOW_STEPS, N_STEPS) * STEP_MS
    requests = []
    for name, unit in (("whole", 1), ("decimals", 100)):
        values = np.cumsum(random.integers(0, 5000, (n_series, len(times))), axis=1) / unit
        for first in range(0, n_series, 20):
            rows = range(first, min(first + 20, n_series))
            labels = [
                encode_labels(
                    {"__name__": name, "instance": f"10.0.{i // 250}.{i % 250}:9100", "job": f"job-{i % 10}"}
                )
                for i in rows
            ]
            part = values[rows.start : rows.stop]
            requests.append(Template(labels, len(times)).fill(part, np.broadcast_to(times, part.shape)))
    return requests


def ask(port: int, query: str, *, keep: bool = False) -> tuple[float, int, bytes]:
    """Seconds until the last byte, the number of bytes with headers and sizes of chunks, and they themselves."""
    end_ms = START_MS + (N_STEPS - 1) * STEP_MS
    times = {"start": START_MS / 1000, "end": end_ms / 1000, "step": STEP_MS / 1000}
    parameters = {"query": query, "nocache": 1, **times}
    path = f"/api/v1/query_range?{urllib.parse.urlencode(parameters)}"
    begin, size, kept, first = time.perf_counter(), 0, bytearray(), b""
    room = memoryview(bytearray(_READ_BYTES))
    # A socket alone: http.client would take as long as the server.
    with socket.create_connection(("127.0.0.1", port), timeout=300) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode())
        while n := connection.recv_into(room):
            first = first or bytes(room[:n])
            size += n
            if keep:
                kept += room[:n]
    if not first.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(first[:500].decode())
    return time.perf_counter() - begin, size, bytes(kept)


def _figures(server: Server, query: str) -> tuple[float, float]:
    cpu_s = server.cpu_s()
    seconds, _, _ = ask(server.port, query)
    return seconds, server.cpu_s() - cpu_s


def bench(n_series: int, rounds: int, servers: Sequence[str] = ("tabor",)) -> str:
    """Measure all queries on these servers; returns a checksum of Tabor's matrices."""
    checksum = hashlib.blake2b(digest_size=8)
    requests = requests_of(n_series)
    print(f"{'':<36}{'count()':>10}{'matrix':>10}{'more':>10}{'CPU':>10}{'CPU':>10}{'more':>10}")
    with tempfile.TemporaryDirectory() as folder:
        for name in servers:
            with _running(SERVERS[name](Path(folder))) as server:
                sent = send(server.port, "/api/v1/write", requests)
                if sent.refused:
                    raise RuntimeError(sent.refused)
                server.flush(server, START_MS + N_STEPS * STEP_MS)
                for query in QUERIES:
                    answer = _compare(server, query, rounds)
                    if name == "tabor":
                        checksum.update(body_of(answer))
        with _running(_constant(Path(folder))) as server:
            _compare(server, "70 MB", rounds)
    return checksum.hexdigest()


def _constant(root: Path) -> Server:
    """No database: the floor of what HTTP takes."""
    options = ["--host", "127.0.0.1", "--port", "{port}", "--lifespan", "off", "--no-access-log"]
    command = [sys.executable, "-m", "uvicorn", "bench.constant_answers:answer", *options]
    return Server("constant", command, root / "constant", lambda *_: None, ())


@contextmanager
def _running(server: Server) -> Iterator[Server]:
    try:
        server.start()
        yield server
        server.stop()
    finally:
        server.kill()


def _compare(server: Server, query: str, rounds: int) -> bytes:
    """Print what count() of a query and the query take; returns the query's answer, with headers."""
    ask(server.port, f"count({query})")
    _, n_bytes, answer = ask(server.port, query, keep=True)
    pairs = [(_figures(server, f"count({query})"), _figures(server, query)) for _ in range(rounds)]
    few, many = (list(zip(*one, strict=True)) for one in zip(*pairs, strict=True))
    wall = statistics.median(few[0]), statistics.median(many[0])
    cpu = statistics.mean(few[1]), statistics.mean(many[1])
    texts = (f"{one:>8.3f} s" for pair in (wall, cpu) for one in (*pair, pair[1] - pair[0]))
    what = f"{server.name} {query}"
    print(f"{what:<36}{''.join(texts)}{n_bytes / 1e6:>5.0f} MB", flush=True)
    return answer


def body_of(answer: bytes) -> bytes:
    """The body of an answer, without its headers and the sizes of its chunks."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    if b"chunked" not in head.lower():
        return rest
    body = []
    at = 0
    while True:
        end = rest.index(b"\r\n", at)
        size = int(rest[at:end], 16)
        if size == 0:
            return b"".join(body)
        body.append(rest[end + 2 : end + 2 + size])
        at = end + 4 + size
