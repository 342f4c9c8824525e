"""The write path through HTTP into `tabor run`, for requests as a real Prometheus sends them and for large ones.

    python -m bench.bench_ingest [small] [large] [--servers tabor tabor-kafka victoria-metrics]
        [--rounds N] [--small]

small: 1,650 series, 487 samples a request. large: 50,000 series, 10,000 samples a request. Both are sent over four
connections, each of which waits for its answer; then some of them once more over one connection, which gives the
latency of a lone sender. CPU is of the whole server process, from the first request until it is idle, by when all
that was sent has been applied; tabor-kafka has its log in a Kafka broker of one process, which is started here or
named by TABOR_TEST_KAFKA, and CPU is of Tabor alone. Each line is the median of the rounds; the servers take
turns. The last line is a checksum of what was sent.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench import servers
from bench.requests import Request, compress, encode_labels, encode_sample
from bench.sender import send
from bench.servers import Server
from tests.kafka_broker import Broker, obtain_broker

PATH = "/api/v1/write"
START_MS = 1_790_000_000_000
STEP_MS = 15_000
CONNECTIONS = 4
LONE_REQUESTS = 300
IDLE_S, IDLE_CPU_S = 0.5, 0.02
SETTLE_LIMIT_S = 30.0


class Load(NamedTuple):
    n_series: int
    n_steps: int
    per_request: int


class Figures(NamedTuple):
    """Samples acknowledged a second, CPU seconds for a million samples, ms for a request of a lone sender."""

    samples_per_s: float
    cpu_s_per_million: float
    lone_ms: float


LOADS = {"small": Load(1_650, 360, 487), "large": Load(50_000, 40, 10_000)}
SHORT_LOADS = {"small": Load(165, 6, 48), "large": Load(500, 4, 500)}


def requests_of(load: Load) -> list[Request]:
    """Counters with two decimals, a hundred on each instance: step after step, all series."""
    random = np.random.default_rng(1)
    labels = [
        encode_labels(
            {
                "__name__": f"app_metric_{i % 100:03d}_total",
                "instance": f"host-{i // 100:05d}.example.net:9100",
                "job": f"job-{i // 100 % 20}",
                "dc": f"dc-{i // 100 % 3}",
                "env": "production",
            }
        )
        for i in range(load.n_series)
    ]
    values = np.round(random.random(load.n_series) * 1e6, 2)
    requests = []
    for step in range(load.n_steps):
        values = np.round(values + random.integers(0, 10_000, load.n_series) / 100, 2)
        rows = [
            one + encode_sample(value, START_MS + step * STEP_MS + i // 100 * 997 % STEP_MS)
            for i, (one, value) in enumerate(zip(labels, values.tolist(), strict=True))
        ]
        parts = [rows[at : at + load.per_request] for at in range(0, len(rows), load.per_request)]
        requests += [Request(compress(part), len(part)) for part in parts]
    return requests


def cpu_of(server: Server) -> float:
    """User and system time of the server so far, seconds."""
    assert server.process is not None
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def settle(server: Server) -> None:
    """Wait until the server does next to nothing."""
    deadline = time.monotonic() + SETTLE_LIMIT_S
    last = cpu_of(server)
    while time.monotonic() < deadline:
        time.sleep(IDLE_S)
        now = cpu_of(server)
        if now - last <= IDLE_CPU_S:
            return
        last = now


def measure(server: Server, requests: list[Request], lone: list[Request]) -> Figures:
    server.start()
    try:
        settle(server)
        cpu_s = cpu_of(server)
        sent = send(server.port, PATH, requests, connections=CONNECTIONS)
        settle(server)
        cpu_s = cpu_of(server) - cpu_s
        alone = send(server.port, PATH, lone, connections=1)
        refused = sent.refused or alone.refused
        if refused:
            raise RuntimeError(f"{server.name} refused a request: {refused}")
        return Figures(
            sent.n_samples / sent.seconds, 1e6 * cpu_s / sent.n_samples, 1e3 * alone.seconds / alone.n_requests
        )
    finally:
        server.stop()


def with_kafka(broker: Broker) -> Callable[[Path], Server]:
    """Makes servers whose log lies in the broker, each in topics of its own."""

    def make(root: Path) -> Server:
        server = servers.tabor(root)
        url = f"kafka://{broker.bootstrap}/{root.name}"
        return replace(server, name="tabor-kafka", command=[*server.command, "--log", url, "--partitions", "4"])

    return make


def bench(loads: dict[str, Load], names: list[str], rounds: int) -> str:
    """Print a line for each load and server; returns a checksum of the requests."""
    makers: dict[str, Callable[[Path], Server]] = {
        "tabor": servers.tabor,
        "victoria-metrics": servers.victoria_metrics,
    }
    with ExitStack() as stack:
        if "tabor-kafka" in names:
            broker = obtain_broker()
            stack.callback(broker.remove)
            makers["tabor-kafka"] = with_kafka(broker)
        return _bench(loads, names, rounds, makers)


def _bench(
    loads: dict[str, Load], names: list[str], rounds: int, makers: dict[str, Callable[[Path], Server]]
) -> str:
    checksum = hashlib.blake2b(digest_size=8)
    print(f"{'load':<8}{'server':<18}{'samples/s':>12}{'CPU s/million':>16}{'lone ms/request':>18}")
    for load, shape in loads.items():
        requests = requests_of(shape)
        for request in requests:
            checksum.update(request.body)
        lone = requests[:LONE_REQUESTS] if load == "small" else requests[:20]
        found: dict[str, list[Figures]] = {name: [] for name in names}
        for _ in range(rounds):
            for name in names:
                with tempfile.TemporaryDirectory(prefix="tabor-bench-") as scratch:
                    found[name].append(measure(makers[name](Path(scratch)), requests, lone))
        for name, figures in found.items():
            speed, cpu, latency = (statistics.median(column) for column in zip(*figures, strict=True))
            print(f"{load:<8}{name:<18}{speed:>12,.0f}{cpu:>16.3f}{latency:>18.2f}", flush=True)
    return checksum.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loads", nargs="*", metavar="LOAD", help="small, large; both if not given")
    parser.add_argument(
        "--servers", nargs="+", choices=("tabor", "tabor-kafka", "victoria-metrics"), default=["tabor"]
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="a few requests, to see that it works")
    arguments = parser.parse_args()
    known = SHORT_LOADS if arguments.small else LOADS
    for load in arguments.loads:
        if load not in known:
            parser.error(f"there is no load {load!r}; there are {', '.join(known)}")
    loads = {name: known[name] for name in arguments.loads or known}
    print(f"checksum {bench(loads, arguments.servers, 1 if arguments.small else arguments.rounds)}")


if __name__ == "__main__":
    main()
