"""Servers under test: started on an empty folder, measured through /proc, killed by pid."""

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
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@dataclass(slots=True)
class Server:
    """A server process; `command` may contain {dir} and {port}."""

    name: str
    command: Sequence[str]
    folder: Path
    write_path: str = "/api/v1/write"
    ready_path: str = "/-/ready"
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self, timeout_s: float = 180.0) -> float:
        """Start and wait until ready; returns the seconds it took."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [part.format(dir=self.folder, port=self.port) for part in self.command]
        begin = time.monotonic()
        with (self.folder.parent / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        while time.monotonic() < begin + timeout_s:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended with {self.process.returncode}, see {log.name}")
            try:
                if self.get(self.ready_path)[0] == 200:
                    return time.monotonic() - begin
            except OSError:
                pass
            time.sleep(0.02)
        raise RuntimeError(f"{self.name} is not ready after {timeout_s} s, see {log.name}")

    def get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def query(self, path: str, **parameters: str | float) -> Any:
        status, body = self.get(f"{path}?{urllib.parse.urlencode(parameters)}")
        answer = json.loads(body)
        if status != 200:
            raise RuntimeError(f"{self.name}: {answer}")
        return answer["data"]

    def cpu_s(self) -> float:
        """User and system time of the process and its children so far."""
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(int(ticks) for ticks in fields[11:15]) / _TICKS

    def memory_bytes(self, what: str = "VmRSS") -> int:
        """VmRSS now, or VmHWM, its peak."""
        assert self.process is not None
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(what + ":"):
                return int(line.split()[1]) * 1024
        raise KeyError(what)

    def stop(self, number: int = signal.SIGTERM) -> float:
        """Send a signal and wait for the end; returns the seconds it took."""
        assert self.process is not None
        begin = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(60)
        return time.monotonic() - begin

    def disk_bytes(self, inside: str = "") -> int:
        return sum(path.stat().st_size for path in (self.folder / inside).rglob("*") if path.is_file())


def tabor(root: Path, *flags: str) -> Server:
    command = [sys.executable, "-m", "tabor", "run", "--data-dir", "{dir}", "--listen", "127.0.0.1:{port}", *flags]
    return Server("tabor", command, root / "tabor")


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
        "--log.level=warn",
    ]
    return Server("prometheus", command, root / "prometheus")


def victoria_metrics(root: Path) -> Server:
    command = [
        "victoria-metrics",
        "-storageDataPath={dir}",
        "-httpListenAddr=127.0.0.1:{port}",
        "-retentionPeriod=100y",
        "-search.latencyOffset=0s",
        "-search.maxUniqueTimeseries=10000000",
        "-loggerLevel=WARN",
    ]
    return Server("victoria-metrics", command, root / "victoria-metrics", ready_path="/health")


def available(name: str) -> bool:
    return shutil.which(name) is not None
