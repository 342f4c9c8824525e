"""Queries over storage nodes in processes of their own, with and without pushdown: seconds, and bytes of answers.

    python -m bench.bench_pushdown [--small]

Three nodes that hold 12 partitions of counters with two decimals in memory, 9,000 series × 960 samples of 15 s.
Times are the best of three; bytes are those of the answers' bodies, compressed as they travel.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import multiprocessing
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from common.control.members import LIVE_S, Member
from common.kernels.jit import all_kernels
from common.labels import LabelTable
from common.store import Matcher, Selection
from query.engine.engine import Engine, EngineConfig, QueryResult
from query.engine.values import Vector
from query.remote import ANSWER_BYTES, RemoteStore

INTERVAL_MS, STEP_MS = 15_000, 60_000
N_NODES, N_PARTITIONS = 3, 12


class Shape(NamedTuple):
    n_series: int
    n_samples: int
    repeat: int


class Measured(NamedTuple):
    seconds: float
    n_bytes: float
    digest: bytes


FULL, SMALL = Shape(9_000, 960, 3), Shape(90, 240, 1)
QUERIES = (
    ("sum by (job) (rate(m[5m]))", STEP_MS),
    ("avg by (job) (m)", STEP_MS),
    ("stddev by (job) (rate(m[5m]))", STEP_MS),
    ("topk(5, rate(m[5m]))", STEP_MS),
    ("quantile by (job) (0.9, rate(m[5m]))", STEP_MS),
    ("rate(m[5m])", STEP_MS),
    ("m", STEP_MS),
    ("sum(rate(m[5m])) / count(m)", STEP_MS),
    ("sum by (job) (rate(m[5m]))", 0),
    ("m", 0),
)
"""Queries and their steps in ms; 0: at one time."""


class Counters:
    """The series of some partitions; answers every selector with all of them, within its times."""

    def __init__(self, shape: Shape, partitions: Sequence[int]) -> None:
        numbers = [i for i in range(shape.n_series) if i % N_PARTITIONS in partitions]
        jobs = [f"job-{i // N_PARTITIONS % 10}" for i in numbers]
        self._labels = LabelTable.of(
            [
                {"__name__": "m", "instance": f"10.0.0.{i}:9100", "job": job}
                for i, job in zip(numbers, jobs, strict=True)
            ]
        )
        # Each partition's samples are the same, whoever holds it.
        rows = np.array([np.random.default_rng(i).random(shape.n_samples) for i in numbers])
        self._values = np.cumsum(np.round(10 * rows.reshape(len(numbers), shape.n_samples), 2), axis=1)
        self._times = np.arange(shape.n_samples, dtype=np.int64) * INTERVAL_MS

    def select(
        self, matchers: Sequence[Matcher], min_time_ms: int, max_time_ms: int, max_samples: int, max_series: int
    ) -> Selection:
        first, end = np.searchsorted(self._times, (min_time_ms, max_time_ms + 1)).tolist()
        n = len(self._labels)
        offsets = np.arange(n + 1, dtype=np.int64) * (end - first)
        times = np.tile(self._times[first:end], n)
        return Selection(self._labels, offsets, times, self._values[:, first:end].reshape(-1))


class Held:
    """What a node reads from; partitions that are asked for together are kept together."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._stores: dict[tuple[int, ...], Counters] = {}

    def over(self, partitions: Sequence[int]) -> Any:
        found = self._stores.get(tuple(partitions))
        if found is None:
            found = self._stores[tuple(partitions)] = Counters(self._shape, partitions)
        return found

    def wait_applied(self, wanted: Mapping[int, int], timeout_s: float) -> None:
        """Everything is."""


def serve(name: str, shape: Shape, says: Connection) -> None:
    """A storage node without storage, until the process is ended."""
    import uvicorn
    from fastapi import FastAPI

    from query.pushdown.answering import evaluate
    from storage_node.reads_http import NodeReads

    held = Held(shape)
    held.over(partitions_of(int(name)))
    app = FastAPI()
    app.include_router(NodeReads(name, held, evaluate=evaluate).router())
    # As real nodes do: else the first answer may take longer than nodes may be silent.
    for kernel in all_kernels():
        kernel.compile()
    sock = socket.create_server(("127.0.0.1", 0))
    says.send(sock.getsockname()[1])
    uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off")).run(sockets=[sock])


def partitions_of(node: int) -> tuple[int, ...]:
    return tuple(range(node, N_PARTITIONS, N_NODES))


class Nodes:
    """What the query server knows of its nodes, without a control topic."""

    def __init__(self, ports: Sequence[int]) -> None:
        self.live_s = LIVE_S
        self._members = []
        for i, port in enumerate(ports):
            applied = dict.fromkeys(partitions_of(i), 1)
            member = Member(str(i), str(i), f"127.0.0.1:{port}", applied, frozenset(), True, False, 0, 0.0)
            self._members.append(member)

    def nodes(self) -> list[Member]:
        return self._members


@contextlib.contextmanager
def cluster(shape: Shape) -> Iterator[RemoteStore]:
    """Nodes that run, and a store over them."""
    context = multiprocessing.get_context("spawn")
    processes, ports = [], []
    try:
        for i in range(N_NODES):
            hears, says = context.Pipe(duplex=False)
            process = context.Process(target=serve, args=(str(i), shape, says), daemon=True)
            process.start()
            processes.append(process)
            ports.append(hears)
        store = RemoteStore(
            Nodes([port.recv() for port in ports]),  # type: ignore[arg-type]
            N_PARTITIONS,
            lambda: [1] * N_PARTITIONS,
        )
        yield store
        store.close()
    finally:
        for process in processes:
            process.terminate()
            process.join()


def ask(engine: Engine, query: str, step_ms: int, shape: Shape) -> QueryResult:
    end_ms = (shape.n_samples - 1) * INTERVAL_MS
    if not step_ms:
        return engine.instant(query, end_ms)
    return engine.range(query, end_ms // 2, end_ms, step_ms)


def digest(result: QueryResult) -> bytes:
    """Of all bits of an answer, whatever the order of its series."""
    value = result.value
    assert isinstance(value, Vector)
    rows = zip(value.labels, value.values, value.present, strict=True)
    texts = [f"{sorted(labels.items())} {values[there].tobytes().hex()}" for labels, values, there in rows]
    return hashlib.blake2b("\n".join(sorted(texts)).encode(), digest_size=8).digest()


def measure(store: RemoteStore, query: str, step_ms: int, shape: Shape, *, pushdown: bool) -> Measured:
    engine, found = Engine(store, EngineConfig(pushdown=pushdown)), []
    for _ in range(shape.repeat):
        bytes_before, start_s = n_bytes(), time.perf_counter()
        result = ask(engine, query, step_ms, shape)
        found.append(Measured(time.perf_counter() - start_s, n_bytes() - bytes_before, digest(result)))
    return min(found)


def n_bytes() -> float:
    """Of all answers so far."""
    return sum(ANSWER_BYTES.labels(read)._value.get() for read in ("select", "evaluate"))


def bench(shape: Shape) -> str:
    """Run all queries; returns a checksum of the answers. Fails if pushdown changes one."""
    checksum = hashlib.blake2b(digest_size=8)
    with cluster(shape) as store:
        print(f"{'':<46}{'samples':>20}{'pushed down':>22}{'bytes':>8}{'time':>7}")
        for query, step_ms in QUERIES:
            plain, pushed = (measure(store, query, step_ms, shape, pushdown=which) for which in (False, True))
            assert plain.digest == pushed.digest, query
            checksum.update(plain.digest)
            name = query + ("" if step_ms else "  (one time)")
            print(
                f"{name:<46}{plain.n_bytes / 1e3:>10.1f} kB {1e3 * plain.seconds:>6.0f} ms"
                f"{pushed.n_bytes / 1e3:>12.1f} kB {1e3 * pushed.seconds:>6.0f} ms"
                f"{pushed.n_bytes / plain.n_bytes:>8.1%}{pushed.seconds / plain.seconds:>7.2f}",
                flush=True,
            )
    return checksum.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="90 series instead of 9,000")
    print(f"checksum {bench(SMALL if parser.parse_args().small else FULL)}")


if __name__ == "__main__":
    main()
