"""Small queries: what HTTP, the query's thread and the look-up of a few series cost.

    python -m bench.bench_small [--servers tabor victoria-metrics prometheus] [--requests 2000] [--partitions 16]

5,000 series × 250 steps, of which each server gets the same samples. One client asks on one kept connection:
milliseconds are the lowest of the medians of five parts, and CPU is of the server for each request.
"""

from __future__ import annotations

import argparse
import http.client
import statistics
import tempfile
import time
import urllib.parse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from bench import loads
from bench.measure import timed_get
from bench.sender import send
from bench.servers import SERVERS, Server, available

PARTS = 5
_HOUR_S = 3600


class Cost(NamedTuple):
    """Of one request: milliseconds until the answer is read, and of the server's CPU."""

    ms: float
    cpu_ms: float


def asked(load: loads.Load) -> dict[str, str]:
    """Path of each request by its name."""
    end_s = load.end_ms / 1000
    host = 'instance="host-00007.example.net:9100"'
    one = f"app_metric_070_total{{{host}}}"
    texts = {
        "nothing": ("1", 0),
        "one series": (one, 0),
        "one series, an hour": (one, _HOUR_S),
        "rate of one, an hour": (f"rate({one}[5m])", _HOUR_S),
        "sum of 50": ("sum(app_metric_070_total)", 0),
        "sum of 50, an hour": ("sum(app_metric_070_total)", _HOUR_S),
        "sum by of rates of 50, an hour": ("sum by (job) (rate(app_metric_070_total[5m]))", _HOUR_S),
        "50 series": ("app_metric_070_total", 0),
        "100 series of a host": (f"{{{host}}}", 0),
    }
    paths = {}
    for name, (text, range_s) in texts.items():
        about: dict[str, object] = {"query": text, "nocache": 1}
        about |= {"start": end_s - range_s, "end": end_s, "step": 30} if range_s else {"time": end_s}
        kind = "query_range" if range_s else "query"
        paths[name] = f"/api/v1/{kind}?{urllib.parse.urlencode(about)}"
    return paths


def ask(server: Server, path: str, n_requests: int) -> Cost:
    """Ask again and again; what comes first warms up and does not count."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    medians, cpu_s, n = [], 0.0, max(1, n_requests // PARTS)
    for part in range(PARTS + 1):
        seconds = []
        before_s = server.cpu_s()
        for _ in range(n):
            seconds.append(timed_get(connection, path, f"{server.name}, {path}")[0])
        if part:
            medians.append(statistics.median(seconds))
            cpu_s += server.cpu_s() - before_s
    connection.close()
    return Cost(min(medians) * 1000, cpu_s * 1000 / (n * PARTS))


def bench(name: str, load: loads.Load, n_requests: int, partitions: int | None) -> dict[str, Cost]:
    """Costs by the names of `asked`."""
    with tempfile.TemporaryDirectory() as folder:
        server = SERVERS[name](Path(folder))
        if name == "tabor" and partitions is not None:
            server = replace(server, command=[*server.command, "--partitions", str(partitions)])
        try:
            server.start()
            sent = send(server.port, "/api/v1/write", load.requests)
            if sent.refused:
                raise RuntimeError(f"{name} refused a request: {sent.refused}")
            while not server.query("/api/v1/query", query=load.probe, time=str(load.probe_ms / 1000))["result"]:
                time.sleep(0.1)
            costs = {what: ask(server, path, n_requests) for what, path in asked(load).items()}
            server.stop()
            return costs
        finally:
            server.kill()


def run(names: Sequence[str], scale: float, n_requests: int, partitions: int | None) -> dict[str, dict[str, Cost]]:
    """Print a table; costs by server and request."""
    load = loads.build("few", scale, [])
    assert load is not None
    found = {name: bench(name, load, n_requests, partitions) for name in names}
    print(f"{'':<32}" + "".join(f"{name:>18} ms   CPU" for name in names))
    for what in asked(load):
        print(
            f"{what:<32}"
            + "".join(f"{found[name][what].ms:>21.3f} {found[name][what].cpu_ms:5.3f}" for name in names)
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--servers", nargs="+", choices=list(SERVERS), default=["tabor", "victoria-metrics", "prometheus"]
    )
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--partitions", type=int, help="of Tabor's log; its default if not given")
    arguments = parser.parse_args()
    run([name for name in arguments.servers if available(name)], 0.5, arguments.requests, arguments.partitions)


if __name__ == "__main__":
    main()
