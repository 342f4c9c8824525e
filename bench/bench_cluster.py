"""A cluster on this machine: what storage processes and strong reads cost, and how long rebuilding takes.

    python -m bench.bench_cluster [--small]

One Kafka broker (Java), one query server, 1, 2 and 4 storage nodes as processes; counters with two decimals,
written straight to the log with `ingest.Producer`. All processes share the cores, so that several nodes are faster
only as far as there are cores for them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.log.url import open_log
from ingest import Producer
from tabor import kernels
from tests.cluster.cluster import Cluster
from tests.cluster.hosts import Loopback
from tests.processes import wait_for

T0 = 1_790_006_400_000
STEP_MS = 15_000
REPEATS = 9


@dataclass(frozen=True, slots=True)
class Scale:
    n_series: int
    n_steps: int
    partitions: int

    @property
    def n_samples(self) -> int:
        return self.n_series * self.n_steps


FULL = Scale(20_000, 480, 16)
SMALL = Scale(500, 60, 4)


def main() -> None:
    parser = argparse.ArgumentParser("python -m bench.bench_cluster", description=__doc__)
    parser.add_argument("--small", action="store_true", help="a few seconds instead of some minutes")
    scale = SMALL if parser.parse_args().small else FULL
    kernels.ensure()
    print(f"{scale.n_series:,} series x {scale.n_steps} steps, {scale.partitions} partitions")
    for n_nodes in (1, 2, 4):
        measure_nodes(scale, n_nodes)
    measure_rebuild(scale)


@contextmanager
def running(scale: Scale, n_nodes: int, replicas: int, *node_flags: str) -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="tabor-bench-"))
    cluster = Cluster(
        Loopback(),
        folder,
        n_brokers=1,
        n_ingestors=1,
        n_nodes=n_nodes,
        n_queries=1,
        partitions=scale.partitions,
        replicas=replicas,
        node_flags=node_flags,
    )
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()
        shutil.rmtree(folder, ignore_errors=True)


def measure_nodes(scale: Scale, n_nodes: int) -> None:
    """One replica of each partition: what more processes bring."""
    with running(scale, n_nodes, 1) as cluster:
        write_s = write(cluster, scale)
        begin_s = time.monotonic()
        wait_for(lambda: is_applied(cluster), "everything is applied", 600)
        applied_s = write_s + time.monotonic() - begin_s
        rates = [scale.n_samples / seconds / 1e6 for seconds in (write_s, applied_s)]
        print(f"{n_nodes} storage nodes: written in {write_s:.1f} s, {rates[0]:.2f} M samples/s;", end=" ")
        print(f"all applied {applied_s:.1f} s after the start, {rates[1]:.2f} M samples/s")
        everything = {"query": "sum by (job) (rate(m[5m]))", "start": T0 / 1000, "step": 60}
        everything["end"] = (T0 + scale.n_steps * STEP_MS) / 1000
        one = {**everything, "query": 'rate(m{i="7"}[5m])'}
        for what, parameters in (("sum by (rate)", everything), ("one series", one)):
            strong = ask(cluster, {**parameters, "consistency": "strong"})
            eventual = ask(cluster, {**parameters, "consistency": "eventual"})
            print(f"  {what}: strong {1000 * strong:.1f} ms, eventual {1000 * eventual:.1f} ms")


def measure_rebuild(scale: Scale) -> None:
    """Two replicas on three nodes; one loses its disk."""
    for source in ("peers", "log"):
        with running(scale, 3, 2, "--from", source) as cluster:
            write(cluster, scale)
            wait_for(lambda c=cluster: is_applied(c), "everything is applied", 600)
            node = cluster.nodes["b"]
            held = sum(one["samples"] for one in node.partitions())
            node.stop()
            cluster.wipe("b")
            begin_s = time.monotonic()
            node.start()
            wait_for(node.is_ready, "the node is ready", 600)
            wait_for(lambda n=node, h=held: sum(p["samples"] for p in n.partitions()) >= h, "it is whole", 600)
            seconds = time.monotonic() - begin_s
            rate = held / seconds / 1e6
            print(f"rebuild from {source}: {held:,} samples in {seconds:.1f} s, {rate:.2f} M samples/s")


def write(cluster: Cluster, scale: Scale) -> float:
    """Write everything to the log; returns the seconds until it was acknowledged."""
    random = np.random.default_rng(1)
    values = np.cumsum(np.round(random.random((scale.n_series, scale.n_steps)) * 10, 2), axis=1).round(2)
    times = T0 + STEP_MS * np.arange(scale.n_steps, dtype=np.int64)
    log = open_log(cluster.url, data_dir=None, partitions=None)
    try:
        with Producer(log) as producer:
            labels = [{"__name__": "m", "i": str(i), "job": str(i % 10)} for i in range(scale.n_series)]
            series = producer.series(labels)
            begin_s = time.monotonic()
            for step in range(scale.n_steps):
                producer.write(series, np.full(scale.n_series, times[step]), values[:, step])
            producer.flush()
            return time.monotonic() - begin_s
    finally:
        log.close()


def is_applied(cluster: Cluster) -> bool:
    """Whether every node has come to the end of the log."""
    return all(one["lag"] == 0 for node in cluster.nodes.values() for one in node.partitions())


def ask(cluster: Cluster, parameters: dict[str, Any]) -> float:
    """Median seconds of a range query, the first time left out."""
    query = cluster.queries[0]
    path = "/api/v1/query_range?" + urllib.parse.urlencode(parameters)
    seconds = []
    for _ in range(REPEATS + 1):
        begin_s = time.perf_counter()
        status, body = query.get(path, 60.0)
        seconds.append(time.perf_counter() - begin_s)
        assert status == 200, body[:500]
        assert json.loads(body)["data"]["result"], "the answer is empty"
    return statistics.median(seconds[1:])


if __name__ == "__main__":
    main()
