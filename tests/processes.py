"""Real processes for tests: started on free ports, asked over HTTP, ended by pid."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

WRITE_HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = 30.0) -> Any:
    """The first truthy value of the condition; fails with `what` at the deadline."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {timeout_s} s: {what}")


class Process:
    """A process under test; its output goes to a file that is shown when it does not do what it should.

    tls: how it is asked, where it has TLS. headers: what every request to it brings.
    """

    def __init__(self, name: str, command: Sequence[str], folder: Path, port: int) -> None:
        self.name = name
        self.command = list(command)
        self.port = port
        self.tls: ssl.SSLContext | None = None
        self.headers: dict[str, str] = {}
        self._log_path = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def output(self) -> str:
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    def start(self) -> None:
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(self.command, stdout=log, stderr=log, env=os.environ.copy())

    def start_and_wait(self, path: str = "/-/ready", timeout_s: float = 120.0) -> None:
        self.start()
        self.wait_until_ready(path, timeout_s)

    def wait_until_ready(self, path: str = "/-/ready", timeout_s: float = 120.0) -> None:
        def ready() -> bool:
            assert self.returncode is None, f"{self.name} ended with {self.returncode}:\n{self.output[-4000:]}"
            try:
                return self.get(path)[0] == 200
            except OSError:
                return False

        wait_for(ready, f"{self.name} is ready; its output:\n{self.output[-4000:]}", timeout_s)

    @property
    def returncode(self) -> int | None:
        return None if self._process is None else self._process.poll()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, timeout_s: float = 30.0) -> int:
        assert self._process is not None
        return self._process.wait(timeout_s)

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """SIGKILL, the crash."""
        self.signal(signal.SIGKILL)
        self.wait()

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        connection = self.connect()
        try:
            connection.request(method, path, body, {**self.headers, **(headers or {})})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def connect(self, timeout_s: float = 60) -> http.client.HTTPConnection:
        if self.tls is None:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout_s, context=self.tls)

    def get(self, path: str, **parameters: str | float) -> tuple[int, bytes]:
        query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        return self.request("GET", path + query)

    def data(self, path: str, **parameters: str | float) -> Any:
        """The data of a successful API answer."""
        status, body = self.get(path, **parameters)
        assert status == 200, (status, body[:500])
        return json.loads(body)["data"]

    def write(self, body: bytes) -> tuple[int, bytes]:
        return self.request("POST", "/api/v1/write", body, WRITE_HEADERS)


def tabor_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tabor", *arguments]


def tabor_run(folder: Path, *flags: str, name: str = "tabor", data_dir: Path | None = None) -> Process:
    """`tabor run` on a free port with its data in `folder`/data; not started yet."""
    port = free_port()
    command = tabor_command(
        "run", "--data-dir", str(data_dir or folder / "data"), "--listen", f"127.0.0.1:{port}", *flags
    )
    return Process(name, command, folder, port)


@contextlib.contextmanager
def running(*processes: Process) -> Iterator[None]:
    """End every process on leaving, however the test ended."""
    try:
        yield
    finally:
        for process in processes:
            process.close()
