"""What a sample costs in a store of 10,000 series and in one of 1,000,000, and what queries of as many series do.

    python -m bench.bench_growth [--servers tabor victoria-metrics] [--scale 1.0]

Three steps make the series known; CPU is of the 5,000,000 samples that come then, from the first request until the
server has been stopped. Queries, best of nine through HTTP on the same server before it is stopped: one metric of
100 instances, which is 1 % of the small store, and the 100 series of one instance.
"""

from __future__ import annotations

import argparse
import http.client
import tempfile
import time
import urllib.parse
from pathlib import Path
from typing import NamedTuple

from bench.loads import EDGE_MS, START_MS, STEP_MS, Fleet, requests_of
from bench.measure import timed_get
from bench.sender import send
from bench.servers import SERVERS, available

SERIES = 10_000, 1_000_000
SAMPLES = 5_000_000
KNOWN_STEPS = 3
REPEATS = 9
QUIET_S = 3.0
"""In which what was done before comes to its end."""
QUERIES = {
    "one metric of 100 instances": 'sum by (job) (app_metric_060_total{instance=~"host-000[0-9]{2}[.].*"})',
    "one instance": '{instance="host-00007.example.net:9100"}',
}


class Found(NamedTuple):
    """CPU seconds a million samples, ms by query."""

    cpu_s_per_million: float
    query_ms: dict[str, float]


def measure(name: str, n_series: int, n_samples: int) -> Found:
    fleet = Fleet(n_series)
    n_steps = max(1, n_samples // n_series)
    known = requests_of(fleet, 0, KNOWN_STEPS)
    more = requests_of(fleet, KNOWN_STEPS, n_steps)
    time_s = (START_MS + (KNOWN_STEPS + n_steps) * STEP_MS + EDGE_MS) / 1000
    with tempfile.TemporaryDirectory(prefix="tabor-bench-") as folder:
        server = SERVERS[name](Path(folder))
        try:
            server.start()
            for requests in (known, more):
                time.sleep(QUIET_S)
                cpu_s = server.cpu_s()
                sent = send(server.port, "/api/v1/write", requests)
                if sent.refused:
                    raise RuntimeError(f"{name} refused a request: {sent.refused}")
            before_queries_s = server.cpu_s()
            query_ms = {what: ask(server.port, text, time_s) for what, text in QUERIES.items()}
            of_queries_s = server.cpu_s() - before_queries_s
            usage = server.stop()
        finally:
            server.kill()
    return Found((usage.cpu_s - cpu_s - of_queries_s) * 1e6 / sent.n_samples, query_ms)


def ask(port: int, text: str, time_s: float) -> float:
    """Best of REPEATS, in ms."""
    path = "/api/v1/query?" + urllib.parse.urlencode({"query": text, "time": time_s, "nocache": 1})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        return min(timed_get(connection, path, text)[0] for _ in range(REPEATS)) * 1000
    finally:
        connection.close()


def run(names: list[str], scale: float) -> None:
    """Print a line for each server and size."""
    print(
        f"{'server':<18}{'series':>12}{'CPU s/million':>16}" + "".join(f"{what + ', ms':>34}" for what in QUERIES)
    )
    for name in names:
        for n_series in (round(n * scale) for n in SERIES):
            found = measure(name, n_series, round(SAMPLES * scale))
            times = "".join(f"{found.query_ms[what]:>34.2f}" for what in QUERIES)
            print(f"{name:<18}{n_series:>12,}{found.cpu_s_per_million:>16.3f}{times}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", nargs="+", choices=list(SERVERS), default=["tabor", "victoria-metrics"])
    parser.add_argument("--scale", type=float, default=1.0)
    arguments = parser.parse_args()
    run([name for name in arguments.servers if available(name)], arguments.scale)


if __name__ == "__main__":
    main()
