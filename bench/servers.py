"""Servers under test: started on an empty folder, measured through /proc, ended by pid."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.requests import compress, encode_labels, encode_sample

_TICKS = os.sysconf("SC_CLK_TCK")
_HEADERS = {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy"}
_COMPACTED_MS = 6 * 3_600_000
"""Prometheus makes blocks of all that is three hours older than its newest sample; with room for whole blocks."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and its children have used. peak_bytes is of the largest process."""

    cpu_s: float
    written_bytes: int
    peak_bytes: int


@dataclass(slots=True)
class Server:
    """A server process; `command` may contain {dir} and {port}.

    flush: brings what is in memory to the disk in its final form, as far as the server can be made to; it is
    given the newest time of the load in ms. log_folders: what holds the log or WAL; `caches` are neither.
    """

    name: str
    command: Sequence[str]
    folder: Path
    flush: Callable[[Server, int], None]
    log_folders: Sequence[str]
    caches: Sequence[str] = ()
    ready_path: str = "/-/ready"
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self, timeout_s: float = 300.0) -> float:
        """Start and wait until ready; returns the seconds it took."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [part.format(dir=self.folder, port=self.port) for part in self.command]
        begin = time.monotonic()
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        while time.monotonic() < begin + timeout_s:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended with {self.process.returncode}: {self._last_words()}")
            try:
                if self.get(self.ready_path)[0] == 200:
                    return time.monotonic() - begin
            except OSError:
                pass
            time.sleep(0.005)
        raise RuntimeError(f"{self.name} is not ready after {timeout_s} s: {self._last_words()}")

    @property
    def log_path(self) -> Path:
        return self.folder.parent / f"{self.name}.log"

    def _last_words(self) -> str:
        return self.log_path.read_text(errors="replace")[-2000:]

    def get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def query(self, path: str, **parameters: str) -> Any:
        status, body = self.get(f"{path}?{urllib.parse.urlencode(parameters)}")
        if status != 200:
            raise RuntimeError(f"{self.name}: {body[:500]!r}")
        return json.loads(body)["data"]

    def write(self, body: bytes) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        connection.request("POST", "/api/v1/write", body, _HEADERS)
        response = connection.getresponse()
        text = response.read()
        connection.close()
        if response.status >= 300:
            raise RuntimeError(f"{self.name}: {text[:500]!r}")

    # -- figures ------------------------------------------------------------------------------------------------

    def _pids(self) -> Iterator[int]:
        assert self.process is not None
        waiting = [self.process.pid]
        while waiting:
            pid = waiting.pop()
            yield pid
            for path in Path(f"/proc/{pid}/task").glob("*/children"):
                waiting += [int(text) for text in path.read_text().split()]

    def cpu_s(self) -> float:
        """User and system time of the process and its children so far."""
        return sum(_cpu_s(pid) for pid in self._pids())

    def rss_bytes(self) -> int:
        return sum(_status(pid, "VmRSS") for pid in self._pids())

    def stop(self, number: int = signal.SIGTERM) -> Usage:
        """Send a signal and wait for the end; returns what the process used, its end included."""
        assert self.process is not None
        pid = self.process.pid
        peak = max(_status(one, "VmHWM") for one in self._pids())
        self.process.send_signal(number)
        # What an ended process has written is on record until it is waited for.
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        usage = Usage(_cpu_s(pid), _written_bytes(pid), peak)
        self.process.wait()
        return usage

    def kill(self) -> None:
        """End the process if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def log_bytes(self) -> int:
        return sum(_size(self.folder / name) for name in self.log_folders)

    def view_bytes(self) -> int:
        return _size(self.folder) - self.log_bytes() - sum(_size(self.folder / name) for name in self.caches)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / _TICKS


def _status(pid: int, what: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1]) * 1024
    return 0


def _written_bytes(pid: int) -> int:
    figures = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(figures["write_bytes"]) - int(figures["cancelled_write_bytes"])


def _size(path: Path) -> int:
    if not path.is_dir():
        return path.stat().st_size if path.is_file() else 0
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


# -- the servers ------------------------------------------------------------------------------------------------


def tabor(root: Path) -> Server:
    command = [sys.executable, "-m", "tabor", "run", "--data-dir", "{dir}", "--listen", "127.0.0.1:{port}"]
    # Tabor writes its head when it is asked to end.
    return Server("tabor", command, root / "tabor", lambda *_: None, ("log",))


def prometheus(root: Path) -> Server:
    config = root / "prometheus.yml"
    config.write_text("storage: {tsdb: {out_of_order_time_window: 100000h}}\n")
    command = [
        "prometheus",
        f"--config.file={config}",
        "--storage.tsdb.path={dir}",
        "--web.listen-address=127.0.0.1:{port}",
        "--web.enable-remote-write-receiver",
        "--storage.tsdb.retention.time=100y",
        "--query.timeout=10m",
        "--log.level=warn",
    ]
    logs = ("wal", "wbl", "chunks_head", "queries.active")
    return Server("prometheus", command, root / "prometheus", _compact_head, logs)


def _compact_head(server: Server, end_ms: int) -> None:
    """Write a sample so late that all else leaves the head; the commit that sees it starts the compaction."""
    labels = encode_labels({"__name__": "bench_end_of_head"})
    for n in range(2):
        server.write(compress([labels + encode_sample(0.0, end_ms + _COMPACTED_MS + n)]))


def victoria_metrics(root: Path) -> Server:
    command = [
        "victoria-metrics",
        "-storageDataPath={dir}",
        "-httpListenAddr=127.0.0.1:{port}",
        "-retentionPeriod=100y",
        "-search.latencyOffset=0s",
        "-search.maxUniqueTimeseries=10000000",
        "-search.maxQueryDuration=10m",
        "-loggerLevel=WARN",
    ]
    folder = root / "victoria-metrics"
    return Server("victoria-metrics", command, folder, _merge_parts, (), ("cache", "tmp"), ready_path="/health")


def _merge_parts(server: Server, end_ms: int) -> None:
    for path in ("/internal/force_flush", "/internal/force_merge"):
        status, body = server.get(path)
        if status != 200:
            raise RuntimeError(f"{path}: {body[:500]!r}")


SERVERS: dict[str, Callable[[Path], Server]] = {
    "prometheus": prometheus,
    "victoria-metrics": victoria_metrics,
    "tabor": tabor,
}


def available(name: str) -> bool:
    return name == "tabor" or shutil.which(name) is not None
