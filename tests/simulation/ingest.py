"""Ingestors and the Prometheus servers that write to them."""

from __future__ import annotations

import random
import struct
from collections import defaultdict, deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from common.errors import TaborError
from common.labels import canonical_labels
from common.store import MAX_TIME_MS, MIN_TIME_MS, STALE_NAN_BITS
from common.tombstones import Tombstone
from ingest.config import IngestConfig
from ingest.errors import RequestRefused
from ingest.ingestor import Ingestor, WriteOutcome
from ingest.metrics import IngestMetrics
from tests.oracles.remote_write import request, snappy
from tests.simulation.log import MAX_HELD, LogClient, SimLog

HOUR_MS = 3600 * 1000
_STEP_MS = 15_000
_QUEUED = 6
Samples = dict[bytes, list[tuple[int, int]]]


def bits_of(value: float) -> int:
    bits: int = struct.unpack("<Q", struct.pack("<d", value))[0]
    return bits


_STALE: float = struct.unpack("<d", struct.pack("<Q", STALE_NAN_BITS))[0]
_ODD_VALUES = (0.0, -0.0, float("nan"), _STALE, float("inf"), 1e-308, 7.0)
_BAD_SERIES = {"bad": "it has no metric name"}


def label_sets(n_series: int) -> list[dict[str, str]]:
    """Labels of the series of a world, some with and some without a job."""
    jobs = ("", "api", "größe")
    return [
        {
            name: text
            for name, text in (("__name__", f"m{i % 3}"), ("i", str(i)), ("job", jobs[i % 2 * (i % 3)]))
            if text
        }
        for i in range(n_series)
    ]


@dataclass(slots=True)
class Ledger:
    """What was ever sent, and what of it was acknowledged: by series and time."""

    sent: dict[bytes, dict[int, set[int]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(set)))
    acknowledged: dict[bytes, set[int]] = field(default_factory=lambda: defaultdict(set))

    def note_sent(self, samples: Samples) -> None:
        for series, pairs in samples.items():
            for time, bits in pairs:
                self.sent[series][time].add(bits)

    def note_acknowledged(self, samples: Samples) -> None:
        for series, pairs in samples.items():
            self.acknowledged[series].update(time for time, _ in pairs)


class SimIngestor:
    """An ingestor that takes its steps when it is told to; it may be killed and started again."""

    def __init__(
        self, log: SimLog, config: IngestConfig, clock_ms: Callable[[], int], gate: Callable[[], str | None]
    ):
        self._log = log
        self._config = config
        self._clock_ms = clock_ms
        self._gate = gate
        self.skew_ms = 0
        self.start()

    def start(self) -> None:
        """Start as a new process, which knows no series."""
        self.client = LogClient(self._log)
        self._ingestor = Ingestor(
            self.client,
            self._config,
            clock=lambda: self._clock_ms() + self.skew_ms,
            gate=self._gate,
            metrics=IngestMetrics(CollectorRegistry()),
        )

    def kill(self) -> None:
        """SIGKILL and start."""
        self.client.die()
        self.start()

    def submit(self, body: bytes) -> Future[WriteOutcome]:
        return self._ingestor.submit(body)

    def delete(self, tombstone: Tombstone) -> None:
        """Put a tombstone into the log, or try to."""
        with suppress(TaborError):
            self._ingestor.delete([tombstone])

    def step(self) -> None:
        """What the ingest thread does with what waits, one group commit."""
        committer = self._ingestor._committer
        if committer._waiting and self.client.n_held < MAX_HELD:
            committer._settle_acknowledged()
            committer._commit_group()

    def drain(self) -> None:
        """Commit and settle until nothing is under way."""
        while self._ingestor._committer._waiting or self.client.n_held:
            self.step()
            self.client.settle()


@dataclass(frozen=True, slots=True)
class _Body:
    data: bytes
    samples: Samples
    whole: bool
    """Whether every series of it is one that is to be taken."""


class SimSender:
    """A Prometheus: it sends requests in order, and one that fails again until it is taken or refused."""

    def __init__(self, rng: random.Random, ledger: Ledger, series: list[dict[str, str]]) -> None:
        self._rng = rng
        self._ledger = ledger
        self._series = series
        self._queue: deque[_Body] = deque()
        self._under_way: tuple[SimIngestor, LogClient, Future[WriteOutcome]] | None = None

    @property
    def n_pending(self) -> int:
        return len(self._queue)

    def scrape(self, now_ms: int, *, odd_times: float, every_series: bool = False) -> None:
        """Queue a request with samples of now and, with some probability each, of other times."""
        rng = self._rng
        if len(self._queue) >= _QUEUED:
            return
        chosen = self._series if every_series else rng.sample(self._series, rng.randint(1, len(self._series)))
        now_ms -= now_ms % _STEP_MS
        request_series = []
        samples: Samples = {}
        for labels in chosen:
            times = [now_ms - i * _STEP_MS for i in range(rng.choice((1, 1, 1, 4, 12)))][::-1]
            times = [self._odd_time(now_ms) if rng.random() < odd_times else time for time in times]
            pairs = [(time, self._value()) for time in times]
            request_series.append((labels, pairs))
            samples[canonical_labels(labels)] = [(time, bits_of(value)) for time, value in pairs]
        whole = rng.random() > 0.05
        if not whole:
            request_series.insert(rng.randint(0, len(request_series)), (_BAD_SERIES, [(now_ms, 1.0)]))
        self._queue.append(_Body(snappy(request(request_series)), samples, whole))
        self._ledger.note_sent(samples)

    def _odd_time(self, now_ms: int) -> int:
        rng = self._rng
        kind = rng.random()
        if kind < 0.4:
            return now_ms - rng.randint(0, 40) * _STEP_MS
        if kind < 0.9:
            return now_ms - rng.randint(-2, 60) * HOUR_MS + rng.randint(0, 3)
        return rng.choice((MIN_TIME_MS, MAX_TIME_MS, -1, 0, now_ms - 400 * 24 * HOUR_MS))

    def _value(self) -> float:
        rng = self._rng
        return rng.choice(_ODD_VALUES) if rng.random() < 0.2 else round(rng.uniform(-100, 100), 2)

    def send(self, ingestor: SimIngestor) -> None:
        """Send the first request of the queue, if none is under way."""
        if self._queue and self._under_way is None:
            try:
                self._under_way = ingestor, ingestor.client, ingestor.submit(self._queue[0].data)
            except TaborError:
                # Not taken: it is sent again later.
                self._under_way = None

    def look(self) -> None:
        """Note the answer to the request under way, if it has come."""
        if self._under_way is None:
            return
        ingestor, client, future = self._under_way
        if not future.done():
            if ingestor.client is not client:
                # The ingestor was killed: the connection is gone.
                self._under_way = None
            return
        self._under_way = None
        error = future.exception()
        if error is None:
            body = self._queue.popleft()
            refusal = future.result().refusal
            assert body.whole or refusal is not None, "a bad series was not refused"
            refused = refusal.n_series if refusal is not None else 0
            # Which series a full table has refused is not known.
            if refused == (not body.whole):
                self._ledger.note_acknowledged(body.samples)
        elif isinstance(error, RequestRefused):
            raise AssertionError(f"a good request was refused: {error}")
