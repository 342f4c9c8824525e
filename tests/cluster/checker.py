"""A load that knows what was acknowledged, and readers that hold every answer against it.

Each writer writes the steps of its series one after the other, and again until they are acknowledged. Each reader
asks a query server strongly, again and again, how many samples each writer's series have. Before it asks it notes
what was acknowledged, afterwards what was sent: the answer has to lie between the two. At the end every sample is
compared. The history of a failed run is kept as JSON lines.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.requests import compress, encode_labels, encode_sample
from tests.processes import WRITE_HEADERS

START_MS = 1_790_000_000_000
STEP_MS = 1_000
N_SERIES = 40
QUERY_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """host:port of a server, and its name."""

    name: str
    address: str
    port: int


@dataclass(slots=True)
class Answers:
    """What a reader got: how often, the longest time between two answers, and what failed."""

    n: int = 0
    longest_gap_s: float = 0.0
    last_s: float = field(default_factory=time.monotonic)
    failures: list[tuple[float, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Checker:
    """Load and readers over a cluster. `start`, faults, `stop`, `verify`."""

    def __init__(
        self,
        ingestors: Sequence[Endpoint],
        queries: Sequence[Endpoint],
        *,
        writers: int = 3,
        pause_s: float = 0.05,
    ) -> None:
        self._ingestors = list(ingestors)
        self._queries = list(queries)
        self._pause_s = pause_s
        self._n_writers = writers
        self._lock = threading.Lock()
        self._stop = threading.Event()
        # Steps of each writer: acknowledged, and begun to be sent.
        self.acknowledged = [0] * writers
        self.sent = [0] * writers
        self.answers = {query.name: Answers() for query in queries}
        self.longest_write_s = 0.0
        self.history: list[dict[str, Any]] = []
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        jobs = [(self._write, (number,)) for number in range(self._n_writers)]
        self._threads = [threading.Thread(target=job, args=args) for job, args in jobs]
        self._threads += [threading.Thread(target=self._read, args=(query,)) for query in self._queries]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(90)
            assert not thread.is_alive(), "the load does not stop"

    def begin_fault(self) -> None:
        """Gaps and failures are counted from here on."""
        now_s = time.monotonic()
        for answers in self.answers.values():
            answers.longest_gap_s, answers.last_s = 0.0, now_s
            answers.failures.clear()

    def total_acknowledged(self) -> int:
        with self._lock:
            return sum(self.acknowledged) * N_SERIES

    def wait_for_progress(self, n_samples: int, timeout_s: float = 60.0) -> None:
        """Wait until so many samples more are acknowledged, and each reader has got five answers more."""
        goal = self.total_acknowledged() + n_samples
        asked = {name: answers.n + 5 for name, answers in self.answers.items()}
        deadline = time.monotonic() + timeout_s
        while self.total_acknowledged() < goal or any(self.answers[q].n < n for q, n in asked.items()):
            assert time.monotonic() < deadline, (
                f"no progress within {timeout_s:.0f} s: {self.total_acknowledged()} samples acknowledged, answers"
                f" { {name: answers.n for name, answers in self.answers.items()} }, last failures"
                f" { {name: answers.failures[-1:] for name, answers in self.answers.items()} }"
            )
            time.sleep(0.05)

    def gaps_ms(self) -> dict[str, int]:
        """Longest time between two answers of each query server since the fault began."""
        now_s = time.monotonic()
        return {
            name: round(1000 * max(answers.longest_gap_s, now_s - answers.last_s))
            for name, answers in self.answers.items()
        }

    def assert_never_wrong(self) -> None:
        for name, answers in self.answers.items():
            assert not answers.wrong, f"{name} gave a wrong answer: {answers.wrong[:3]}"

    def verify(self, query: Endpoint) -> int:
        """Every acknowledged sample is there, once, with its value, and nothing that was never sent."""
        total = 0
        for writer in range(self._n_writers):
            steps = self.sent[writer]
            data = self._ask(query, f'load{{writer="{writer}"}}[{steps + 2}s]', steps)
            by_step = [0] * (steps + 1)
            for row in data["result"]:
                series = int(row["metric"]["series"])
                times = [time_s for time_s, _ in row["values"]]
                assert times == sorted(set(times)), f"series {series} of writer {writer}: times do not ascend"
                for time_s, text in row["values"]:
                    step, rest = divmod(round(time_s * 1000) - START_MS, STEP_MS)
                    assert rest == 0, f"a sample at {time_s} was never sent"
                    assert 0 <= step < steps, f"a sample at {time_s} was never sent"
                    assert float(text) == value_of(writer, series, step), (writer, series, step, text)
                    by_step[step] += 1
                    total += 1
            lost = [step for step in range(self.acknowledged[writer]) if by_step[step] != N_SERIES]
            assert not lost, (
                f"writer {writer}: of {len(lost)} acknowledged steps samples are lost, first {lost[:5]}"
            )
        return total

    def save(self, path: Path) -> None:
        with self._lock, path.open("w") as out:
            out.writelines(json.dumps(event) + "\n" for event in self.history)

    def _write(self, writer: int) -> None:
        labels = [
            encode_labels({"__name__": "load", "writer": str(writer), "series": f"{series:03d}"})
            for series in range(N_SERIES)
        ]
        target = writer % len(self._ingestors)
        connection: http.client.HTTPConnection | None = None
        while not self._stop.is_set():
            step = self.sent[writer]
            with self._lock:
                self.sent[writer] += 1
            body = compress(
                label + encode_sample(value_of(writer, series, step), START_MS + step * STEP_MS)
                for series, label in enumerate(labels)
            )
            begin_s = time.monotonic()
            while True:
                if connection is None:
                    ingestor = self._ingestors[target]
                    connection = http.client.HTTPConnection(ingestor.address, ingestor.port, timeout=10)
                if self._post(connection, body):
                    break
                connection.close()
                # As Prometheus behind a balancer: again, and elsewhere.
                target, connection = (target + 1) % len(self._ingestors), None
                if self._stop.wait(random.uniform(0.02, 0.1)):
                    return
            with self._lock:
                self.acknowledged[writer] = step + 1
                self.longest_write_s = max(self.longest_write_s, time.monotonic() - begin_s)
            self._stop.wait(self._pause_s)

    def _post(self, connection: http.client.HTTPConnection, body: bytes) -> bool:
        try:
            connection.request("POST", "/api/v1/write", body, WRITE_HEADERS)
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException):
            return False
        assert response.status in (204, 503), (response.status, text[:500])
        return response.status == 204

    def _read(self, query: Endpoint) -> None:
        answers = self.answers[query.name]
        while not self._stop.is_set():
            with self._lock:
                before = list(self.acknowledged)
            begin_s = time.monotonic()
            steps = max(before, default=0) + 1000
            try:
                data = self._ask(query, f"sum by (writer) (count_over_time(load[{10 * steps}s]))", steps)
            except (OSError, http.client.HTTPException, AssertionError, ValueError) as error:
                answers.failures.append((time.monotonic(), str(error)[:500]))
                self._note(query, begin_s, before, None, str(error)[:500])
                self._stop.wait(0.05)
                continue
            with self._lock:
                after = list(self.sent)
            now_s = time.monotonic()
            answers.longest_gap_s = max(answers.longest_gap_s, now_s - answers.last_s)
            answers.last_s = now_s
            found = {row["metric"]["writer"]: float(row["value"][1]) for row in data["result"]}
            self._note(query, begin_s, before, found, None)
            for writer in range(self._n_writers):
                n_samples = found.get(str(writer), 0.0)
                if not before[writer] * N_SERIES <= n_samples <= after[writer] * N_SERIES:
                    answers.wrong.append(
                        f"writer {writer}: {n_samples:.0f} samples; {before[writer] * N_SERIES} were acknowledged"
                        f" before, {after[writer] * N_SERIES} sent when it was answered"
                    )
            answers.n += 1
            self._stop.wait(0.02)

    def _note(self, query: Endpoint, begin_s: float, before: list[int], found: Any, error: str | None) -> None:
        event = {"at": time.monotonic(), "began": begin_s, "query": query.name, "acknowledged": before}
        with self._lock:
            self.history.append({**event, "found": found, "error": error})

    def _ask(self, query: Endpoint, expression: str, steps: int) -> Any:
        connection = http.client.HTTPConnection(query.address, query.port, timeout=QUERY_TIMEOUT_S)
        parameters = {"query": expression, "time": str((START_MS + steps * STEP_MS) / 1000), "timeout": "20s"}
        try:
            connection.request("GET", "/api/v1/query?" + urllib.parse.urlencode(parameters))
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        assert response.status == 200, f"{response.status}: {body[:500]!r}"
        answer = json.loads(body)
        assert not answer.get("warnings"), f"warnings: {answer['warnings']}"
        return answer["data"]


def value_of(writer: int, series: int, step: int) -> float:
    """A function of all three, so that a foreign sample is seen as such."""
    return float((writer * 1_000_003 + series * 1_009 + step * 31) % 1_000_000) / 100
