"""One server on one load: what it takes to send it, to keep it, to ask it, and to come back."""

from __future__ import annotations

import http.client
import json
import re
import resource
import signal
import statistics
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cramjam

from bench.loads import Load
from bench.queries import Query
from bench.sender import Sent, send
from bench.servers import Server

IDLE_CPU_SHARE = 0.03
IDLE_S = 2.0
SETTLE_LIMIT_S = 120.0
PROBE_LIMIT_S = 60.0
MIB = 1 << 20

MakeServer = Callable[[Path], Server]


@dataclass(frozen=True, slots=True)
class Answer:
    """Seconds of each run of a query, the first one after a start included; and the answer, compressed."""

    query: Query
    seconds: list[float]
    n_bytes: int
    packed: bytes

    @property
    def data(self) -> Any:
        return json.loads(bytes(cramjam.zstd.decompress(self.packed)))["data"]

    @property
    def best_s(self) -> float:
        return min(self.seconds)

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)


@dataclass(slots=True)
class Measured:
    """Figures by name, and the answers to the queries."""

    server: str
    load: str
    figures: dict[str, float] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to do. repeats: runs of a query, of which fewer are made once seconds_per_query are spent."""

    connections: int = 4
    repeats: int = 5
    seconds_per_query: float = 2.0
    idle_s: float = IDLE_S
    with_kill: bool = True


def measure(make: MakeServer, load: Load, queries: Iterable[Query], effort: Effort, root: Path) -> Measured:
    """All figures of one server on one load. Folders are made in `root`.

    Raises:
        RuntimeError: the server refused a request, lost samples or failed a query.
    """
    server = make(root)
    measured = Measured(server.name, load.name)
    try:
        _ingest(server, load, effort, measured.figures)
        measured.figures["ready_s"] = server.start()
        _settle(server, effort)
        measured.answers = [_ask(server, query, effort) for query in queries]
        measured.figures["rss_after_queries_mib"] = server.rss_bytes() / MIB
        server.stop()
        _keep_sizes(server, load, measured.figures, "merged_")
        if server.name == "tabor":
            _replay(server, load, measured.figures)
    finally:
        server.kill()
    if effort.with_kill:
        folder = root / "killed"
        folder.mkdir()
        server = make(folder)
        try:
            _kill(server, load, effort, measured.figures)
        finally:
            server.kill()
    return measured


def _ingest(server: Server, load: Load, effort: Effort, figures: dict[str, float]) -> None:
    figures["start_s"] = server.start()
    _settle(server, effort)
    cpu_s, rss = server.cpu_s(), server.rss_bytes()
    sent = _send(server, load, effort)
    begin = time.monotonic()
    _probe(server, load)
    seen_s = time.monotonic() - begin
    figures["samples"], figures["series"] = load.n_samples, load.n_series
    figures["samples_per_s"] = sent.n_samples / sent.seconds
    figures["queryable_samples_per_s"] = sent.n_samples / (sent.seconds + seen_s)
    figures["busy_rss_mib"] = server.rss_bytes() / MIB
    figures["settled_s"] = _settle(server, effort)
    figures["settled_rss_mib"] = server.rss_bytes() / MIB
    figures["settled_rss_bytes_per_series"] = server.rss_bytes() / load.n_series
    figures["rss_growth_bytes_per_series"] = (server.rss_bytes() - rss) / load.n_series
    server.flush(server, load.newest_ms)
    _settle(server, effort)
    usage = server.stop()
    figures["peak_rss_mib"] = usage.peak_bytes / MIB
    figures["peak_rss_bytes_per_series"] = usage.peak_bytes / load.n_series
    figures["cpu_s_per_million"] = (usage.cpu_s - cpu_s) / (load.n_samples / 1e6)
    _keep_sizes(server, load, figures, "")
    figures["written_bytes_per_sample"] = usage.written_bytes / load.n_samples
    kept = server.view_bytes() + server.log_bytes()
    figures["written_per_byte_kept"] = usage.written_bytes / max(1, kept)
    beyond_log = usage.written_bytes - server.log_bytes()
    figures["written_per_view_byte"] = beyond_log / max(1, server.view_bytes())


def _keep_sizes(server: Server, load: Load, figures: dict[str, float], prefix: str) -> None:
    figures[f"{prefix}view_bytes_per_sample"] = server.view_bytes() / load.n_samples
    figures[f"{prefix}log_bytes_per_sample"] = server.log_bytes() / load.n_samples


def _send(server: Server, load: Load, effort: Effort) -> Sent:
    sent = send(server.port, "/api/v1/write", load.requests, connections=effort.connections)
    if sent.refused:
        raise RuntimeError(f"{server.name} refused a request: {sent.refused}")
    return sent


def _probe(server: Server, load: Load) -> float:
    """Ask until the newest samples can be seen; returns how many series were."""
    deadline = time.monotonic() + PROBE_LIMIT_S
    pause_s = 0.01
    while True:
        data = server.query("/api/v1/query", query=load.probe, time=f"{load.probe_ms / 1000:.3f}", nocache="1")
        if data["result"]:
            return float(data["result"][0]["value"][1])
        if time.monotonic() > deadline:
            raise RuntimeError(f"{server.name} shows nothing of what it acknowledged {PROBE_LIMIT_S} s ago")
        # Each pause is longer than all before it: what asking costs is the server's CPU too.
        time.sleep(pause_s)
        pause_s *= 2


def _settle(server: Server, effort: Effort) -> float:
    """Wait until the process is idle; returns the seconds that took."""
    begin = time.monotonic()
    last = server.cpu_s()
    while time.monotonic() - begin < SETTLE_LIMIT_S:
        time.sleep(effort.idle_s)
        now = server.cpu_s()
        if now - last <= IDLE_CPU_SHARE * effort.idle_s:
            break
        last = now
    return time.monotonic() - begin


def _ask(server: Server, query: Query, effort: Effort) -> Answer:
    """Run a query several times on one connection; reading JSON is not in the time."""
    path = f"{query.path}?{urllib.parse.urlencode(query.parameters)}"
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
    connection.connect()
    seconds: list[float] = []
    body = b""
    while len(seconds) < effort.repeats and (len(seconds) < 2 or sum(seconds) < effort.seconds_per_query):
        took_s, body = timed_get(connection, path, f"{server.name} failed {query.text}")
        seconds.append(took_s)
    connection.close()
    return Answer(query, seconds, len(body), bytes(cramjam.zstd.compress(body, level=1)))


def timed_get(connection: http.client.HTTPConnection, path: str, failed: str) -> tuple[float, bytes]:
    """Seconds until an answer has been read, and its body. Raises RuntimeError if it is no 200."""
    begin = time.perf_counter()
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read()
    took_s = time.perf_counter() - begin
    if response.status != 200:
        raise RuntimeError(f"{failed}: {body[:500]!r}")
    return took_s, body


def _kill(server: Server, load: Load, effort: Effort, figures: dict[str, float]) -> None:
    """Send all, SIGKILL as soon as the last request is acknowledged, start again, and look what is left."""
    server.start()
    _send(server, load, effort)
    server.stop(signal.SIGKILL)
    figures["ready_after_kill_s"] = server.start()
    data = server.query("/api/v1/query", query=load.probe, time=f"{load.probe_ms / 1000:.3f}", nocache="1")
    figures["probe_after_kill"] = float(data["result"][0]["value"][1]) if data["result"] else 0.0


def _replay(server: Server, load: Load, figures: dict[str, float]) -> None:
    """Rebuild the views from the log; the command itself compares the digests."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "tabor", "replay", "--data-dir", str(server.folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    figures["replay_samples_per_cpu_s"] = load.n_samples / cpu_s
    said = re.search(r"([\d,]+) samples/s\s*$", done.stdout + done.stderr)
    assert said is not None, done
    figures["replay_samples_per_s"] = float(said[1].replace(",", ""))
