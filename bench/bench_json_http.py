"""Large answers over HTTP: what the whole matrix costs, against a small answer of the same computation.

    python -m bench.bench_json --http [--small]

A `tabor run` with 10,000 counters, a range query of 301 steps: count() of the matrix, and the matrix. Each is
asked for once before, so that caches are warm, and then in turns; seconds until the last byte has been read are
medians, CPU seconds are the server's, means. The last line is a checksum of the matrices.
"""

from __future__ import annotations

import hashlib
import socket
import statistics
import tempfile
import time
import urllib.parse
from pathlib import Path

import numpy as np

from bench.requests import Request, Template, encode_labels
from bench.sender import send
from bench.servers import Server, tabor

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
    parameters = {"query": query, "start": START_MS / 1000, "end": end_ms / 1000, "step": STEP_MS / 1000}
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


def bench(n_series: int, rounds: int) -> str:
    """Measure all queries; returns a checksum of the matrices."""
    checksum = hashlib.blake2b(digest_size=8)
    with tempfile.TemporaryDirectory() as folder:
        server = tabor(Path(folder))
        try:
            server.start()
            sent = send(server.port, "/api/v1/write", requests_of(n_series))
            if sent.refused:
                raise RuntimeError(sent.refused)
            print(f"{'':<24}{'count()':>10}{'matrix':>10}{'÷':>6}{'CPU':>10}{'CPU':>9}{'÷':>6}{'':>8}")
            for query in QUERIES:
                ask(server.port, f"count({query})")
                _, n_bytes, answer = ask(server.port, query, keep=True)
                pairs = [(_figures(server, f"count({query})"), _figures(server, query)) for _ in range(rounds)]
                few, many = (list(zip(*one, strict=True)) for one in zip(*pairs, strict=True))
                wall = statistics.median(few[0]), statistics.median(many[0])
                cpu = statistics.mean(few[1]), statistics.mean(many[1])
                print(
                    f"{query:<24}{wall[0]:>8.3f} s{wall[1]:>8.3f} s{wall[1] / wall[0]:>6.1f}"
                    f"{cpu[0]:>8.3f} s{cpu[1]:>7.3f} s{cpu[1] / max(cpu[0], 0.001):>6.1f}{n_bytes / 1e6:>5.0f} MB",
                    flush=True,
                )
                checksum.update(body_of(answer))
            server.stop()
        finally:
            server.kill()
    return checksum.hexdigest()


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
