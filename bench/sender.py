"""Sends prepared requests over a few connections and knows what was acknowledged."""

from __future__ import annotations

import http.client
import queue
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bench.requests import Request

REMOTE_WRITE = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}


@dataclass(slots=True)
class Sent:
    """What a run of `send` got acknowledged."""

    n_samples: int = 0
    n_requests: int = 0
    seconds: float = 0.0
    refused: str | None = None


def send(
    port: int,
    path: str,
    requests: Iterable[Request],
    *,
    connections: int = 4,
    headers: Mapping[str, str] = REMOTE_WRITE,
) -> Sent:
    """Send all requests; each connection takes the next one when its last was acknowledged."""
    work: queue.Queue[Request | None] = queue.Queue(connections * 4)
    sent = Sent()
    lock = threading.Lock()

    def run() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        while (request := work.get()) is not None:
            connection.request("POST", path, request.body, headers)
            response = connection.getresponse()
            text = response.read()
            with lock:
                sent.n_requests += 1
                if response.status < 300:
                    sent.n_samples += request.n_samples
                elif sent.refused is None:
                    sent.refused = f"{response.status}: {text[:200]!r}"
        connection.close()

    threads = [threading.Thread(target=run) for _ in range(connections)]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for request in requests:
        work.put(request)
    for _ in threads:
        work.put(None)
    for thread in threads:
        thread.join()
    sent.seconds = time.monotonic() - begin
    return sent
