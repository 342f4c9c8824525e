"""A load that knows what was acknowledged, and asks for every sample of it afterwards."""

from __future__ import annotations

import http.client
import random
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from bench.requests import compress, encode_labels, encode_sample
from tests.processes import WRITE_HEADERS, Process

START_MS = 1_790_000_000_000
STEP_MS = 1_000


@dataclass(slots=True)
class Ledger:
    """What was sent and what of it was acknowledged: step numbers of each batch of series."""

    acknowledged: set[tuple[int, int]] = field(default_factory=set)
    sent: set[tuple[int, int]] = field(default_factory=set)


class Load:
    """`n_batches` batches of series, written step after step by one thread each.

    The value of a sample is a function of batch, series and step, so that a foreign one is seen as such. A batch
    sends a step again until it is acknowledged, as Prometheus does.
    """

    def __init__(self, *, n_batches: int = 4, n_series: int = 50, seed: int = 0) -> None:
        self.n_batches = n_batches
        self.n_series = n_series
        self.ledger = Ledger()
        self._seed = seed
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._labels = [
            [
                encode_labels({"__name__": "load", "batch": str(batch), "series": f"{series:04d}"})
                for series in range(n_series)
            ]
            for batch in range(n_batches)
        ]
        self._threads: list[threading.Thread] = []

    def value(self, batch: int, series: int, step: int) -> float:
        return float((self._seed * 7 + batch * 1_000_003 + series * 1_009 + step * 31) % 1_000_000) / 100

    def start(self, server: Process) -> None:
        self._threads = [
            threading.Thread(target=self._write_batch, args=(server, batch)) for batch in range(self.n_batches)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def acknowledged_samples(self) -> int:
        with self._lock:
            return len(self.ledger.acknowledged) * self.n_series

    def _body(self, batch: int, step: int) -> bytes:
        time_ms = START_MS + step * STEP_MS
        return compress(
            label + encode_sample(self.value(batch, series, step), time_ms)
            for series, label in enumerate(self._labels[batch])
        )

    def _write_batch(self, server: Process, batch: int) -> None:
        connection = server.connect(30)
        headers = {**WRITE_HEADERS, **server.headers}
        for step in range(10_000_000):
            body = self._body(batch, step)
            with self._lock:
                self.ledger.sent.add((batch, step))
            while not self._stop.is_set():
                if _post(connection, body, headers):
                    with self._lock:
                        self.ledger.acknowledged.add((batch, step))
                    break
                self._stop.wait(random.uniform(0.02, 0.1))
            if self._stop.is_set():
                break
        connection.close()

    def check(self, server: Process) -> int:
        """Every acknowledged sample is there, once, with its value; nothing else is. Returns how many samples."""
        steps = max((step for _, step in self.ledger.sent), default=0)
        found: dict[tuple[int, int], int] = {}
        total = 0
        for batch in range(self.n_batches):
            for series, samples in self._read(server, batch, steps):
                times = [time for time, _ in samples]
                assert times == sorted(set(times)), f"batch {batch} series {series}: times not strictly ascending"
                for time_s, text in samples:
                    step, rest = divmod(round(time_s * 1000) - START_MS, STEP_MS)
                    assert rest == 0, f"batch {batch} series {series}: a sample at {time_s} was never sent"
                    assert float(text) == self.value(batch, series, step), (batch, series, step, text)
                    found[batch, step] = found.get((batch, step), 0) + 1
                    total += 1
        missing = sorted(key for key in self.ledger.acknowledged if found.get(key) != self.n_series)
        assert not missing, f"{len(missing)} acknowledged requests lack samples, first {missing[:5]}"
        foreign = sorted(set(found) - self.ledger.sent)
        assert not foreign, f"samples that were never sent: {foreign[:5]}"
        return total

    def _read(self, server: Process, batch: int, steps: int) -> Iterator[tuple[int, list[tuple[float, str]]]]:
        data = server.data(
            "/api/v1/query",
            query=f'load{{batch="{batch}"}}[{steps + 2}s]',
            time=(START_MS + steps * STEP_MS) / 1000,
        )
        for row in data["result"]:
            yield int(row["metric"]["series"]), [(t, v) for t, v in row["values"]]


def _post(connection: http.client.HTTPConnection, body: bytes, headers: dict[str, str]) -> bool:
    """True if the server acknowledged; a refused, broken or retryable answer is False, any other an error."""
    try:
        connection.request("POST", "/api/v1/write", body, headers)
        response = connection.getresponse()
        text = response.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        return False
    assert response.status in (204, 503), (response.status, text[:500])
    return response.status == 204


def wait_for_acknowledged(load: Load, n_samples: int, timeout_s: float = 60.0) -> None:
    """Wait until the load has that many samples more acknowledged than now."""
    goal = load.acknowledged_samples() + n_samples
    deadline = time.monotonic() + timeout_s
    while load.acknowledged_samples() < goal:
        assert time.monotonic() < deadline, f"{load.acknowledged_samples()} samples acknowledged, wanted {goal}"
        time.sleep(0.02)


def nasty_value(step: int) -> float:
    """Values whose bits must survive: NaN payloads, the stale marker, -0.0, infinities, subnormals."""
    bits = (0x7FF0000000000002, 0x7FF8000000000001, 0x8000000000000000, 0x7FF0000000000000, 1, 0xFFF0000000000000)
    value: float = struct.unpack("<d", struct.pack("<Q", bits[step % len(bits)]))[0]
    return value
