"""OTLP and remote write of the same samples into `tabor run`, in turn.

    python -m bench.bench_otlp [--rounds N] [--small]

1,000 gauges with five labels, ten points of each in a request of 10,000, over two connections. OTLP is gzip, as an
OpenTelemetry Collector sends it, remote write snappy. CPU is of the whole server, until it is idle. Each line is
the median of the rounds. The last line is a checksum of what was sent.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import statistics
import tempfile
from pathlib import Path
from typing import NamedTuple

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from bench import servers
from bench.bench_ingest import START_MS, STEP_MS, cpu_of, settle
from bench.requests import Request, compress, encode_labels, encode_sample
from bench.sender import REMOTE_WRITE, send

OTLP = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
PATHS = {"otlp": "/api/v1/otlp/v1/metrics", "remote write": "/api/v1/write"}
HEADERS = {"otlp": OTLP, "remote write": REMOTE_WRITE}
CONNECTIONS = 2
POINTS = 10


class Load(NamedTuple):
    n_series: int
    n_requests: int


def labels_of(series: int) -> dict[str, str]:
    return {
        "method": ("GET", "PUT")[series % 2],
        "route": f"/shop/item/{series % 100}",
        "status": str(200 + series // 100),
        "host": "host-17.example.net",
        "zone": "eu-1",
    }


def value_of(series: int, step: int) -> float:
    return (series * 31 + step * step) % 10_007 / 4


def otlp_request(load: Load, first_step: int) -> bytes:
    """All series, `POINTS` points of each, step after step."""
    message = ExportMetricsServiceRequest()
    metric = message.resource_metrics.add().scope_metrics.add().metrics.add(name="app.metric")
    for step in range(first_step, first_step + POINTS):
        for series in range(load.n_series):
            time_ns = (START_MS + step * STEP_MS) * 1_000_000
            point = metric.gauge.data_points.add(time_unix_nano=time_ns, as_double=value_of(series, step))
            for name, text in labels_of(series).items():
                point.attributes.add(key=name).value.string_value = text
    return gzip.compress(message.SerializeToString(), 6, mtime=0)


def remote_write_request(load: Load, first_step: int) -> bytes:
    """The same samples, those of a series together."""
    parts = []
    for series in range(load.n_series):
        part = encode_labels({"__name__": "app_metric", **labels_of(series)})
        for step in range(first_step, first_step + POINTS):
            part += encode_sample(value_of(series, step), START_MS + step * STEP_MS)
        parts.append(part)
    return compress(parts)


def bench(load: Load, rounds: int) -> str:
    """Print a line for each protocol; returns a checksum of the requests."""
    makers = {"otlp": otlp_request, "remote write": remote_write_request}
    n_samples = load.n_series * POINTS
    checksum = hashlib.blake2b(digest_size=8)
    requests: dict[str, list[Request]] = {}
    for name, make in makers.items():
        bodies = [make(load, POINTS * i) for i in range(load.n_requests)]
        requests[name] = [Request(body, n_samples) for body in bodies]
    for request in requests["remote write"]:
        checksum.update(request.body)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in makers}
    for _ in range(rounds):
        for name in makers:
            with tempfile.TemporaryDirectory(prefix="tabor-bench-") as scratch:
                found[name].append(measure(Path(scratch), name, requests[name]))
    print(f"{'protocol':<14}{'samples/s':>12}{'CPU s/million':>16}{'bytes/sample':>16}")
    for name, figures in found.items():
        speed, cpu = (statistics.median(column) for column in zip(*figures, strict=True))
        size = sum(len(request.body) for request in requests[name]) / (n_samples * load.n_requests)
        print(f"{name:<14}{speed:>12,.0f}{cpu:>16.3f}{size:>16.1f}", flush=True)
    return checksum.hexdigest()


def measure(scratch: Path, name: str, requests: list[Request]) -> tuple[float, float]:
    """Samples acknowledged a second, and CPU seconds for a million of them."""
    server = servers.tabor(scratch)
    server.start()
    try:
        # The first request brings modules and series.
        first, *others = requests
        send(server.port, PATHS[name], [first], connections=1, headers=HEADERS[name])
        settle(server)
        cpu_s = cpu_of(server)
        sent = send(server.port, PATHS[name], others, connections=CONNECTIONS, headers=HEADERS[name])
        settle(server)
        if sent.refused:
            raise RuntimeError(f"{name} was refused: {sent.refused}")
        return sent.n_samples / sent.seconds, 1e6 * (cpu_of(server) - cpu_s) / sent.n_samples
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="a few requests, to see that it works")
    arguments = parser.parse_args()
    load = Load(20, 3) if arguments.small else Load(1000, 60)
    print(f"checksum {bench(load, 1 if arguments.small else arguments.rounds)}")


if __name__ == "__main__":
    main()
