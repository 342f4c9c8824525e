"""`python -m bench`: ingestion, memory, disk, queries, replay and restart, with peers in the same run.

Every load is sent as the same prepared requests to each server in turn. CPU is of the whole server process, from the
first request until it has been idle for a while, so that work put off counts too.
"""

from __future__ import annotations

import argparse
import csv
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import servers
from bench.requests import Request, recorded, synthetic
from bench.sender import send
from bench.servers import Server

START_MS = 1_790_000_000_000
IDLE_CPU_SHARE = 0.03
SETTLE_LIMIT_S = 60.0


def main() -> None:
    arguments = _arguments()
    rows: list[dict[str, str]] = []
    for load, requests in _loads(arguments):
        n_samples = sum(request.n_samples for request in requests)
        print(f"\n{load}: {n_samples:,} samples in {len(requests):,} requests", flush=True)
        for peer in arguments.servers:
            with tempfile.TemporaryDirectory(prefix="tabor-bench-", dir=arguments.scratch) as scratch:
                row = _measure(peer, load, requests, n_samples, Path(scratch), arguments)
            rows.append(row)
            print("  " + "  ".join(f"{key}={value}" for key, value in row.items() if key != "load"), flush=True)
    _save(rows, arguments.output)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    known = ("tabor", "prometheus", "victoria-metrics")
    parser.add_argument("--servers", nargs="+", choices=known, default=["tabor"])
    parser.add_argument(
        "--recorded", nargs="*", type=Path, default=[], help="recordings to send, see bench.requests"
    )
    parser.add_argument("--series", type=int, default=50_000, help="series of the synthetic load")
    parser.add_argument("--steps", type=int, default=100, help="samples of each of these series")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--scratch", type=Path, help="folder for the servers' data")
    parser.add_argument("--output", type=Path, default=Path("bench/results"))
    return parser.parse_args()


def _loads(arguments: argparse.Namespace) -> list[tuple[str, list[Request]]]:
    loads = []
    if arguments.recorded:
        loads.append(("recorded", list(recorded(arguments.recorded))))
    else:
        print("no --recorded FILE given: the load of real traffic is left out")
    if arguments.series:
        requests = list(synthetic(arguments.series, arguments.steps, start_ms=START_MS))
        loads.append((f"synthetic-{arguments.series}x{arguments.steps}", requests))
    return loads


def _measure(
    peer: str, load: str, requests: Sequence[Request], n_samples: int, scratch: Path, arguments: argparse.Namespace
) -> dict[str, str]:
    makers: dict[str, Callable[[Path], Server]] = {
        "tabor": servers.tabor,
        "prometheus": servers.prometheus,
        "victoria-metrics": servers.victoria_metrics,
    }
    server = makers[peer](scratch)
    row = {"load": load, "server": peer, "start_s": f"{server.start():.2f}"}
    try:
        _settle(server)
        cpu, memory = server.cpu_s(), server.memory_bytes()
        sent = send(server.port, server.write_path, requests, connections=arguments.connections)
        if sent.refused:
            print(f"  {peer} refused a request: {sent.refused}")
        row["samples_per_s"] = f"{sent.n_samples / sent.seconds:,.0f}"
        settled_s = _settle(server)
        million = n_samples / 1e6
        row["cpu_s_per_million"] = f"{(server.cpu_s() - cpu) / million:.3f}"
        row["settled_s"] = f"{settled_s:.1f}"
        row["rss_mib"] = f"{server.memory_bytes() / 2**20:.0f}"
        row["peak_mib"] = f"{server.memory_bytes('VmHWM') / 2**20:.0f}"
        row["rss_growth_mib"] = f"{(server.memory_bytes() - memory) / 2**20:.0f}"
        row["query_s"] = _query_seconds(server)
        server.stop(signal.SIGKILL)
        row["ready_after_kill_s"] = f"{server.start():.2f}"
        row["stop_s"] = f"{server.stop():.2f}"
        row["bytes_per_sample"] = f"{server.disk_bytes() / n_samples:.2f}"
        if peer == "tabor":
            row["view_bytes_per_sample"] = f"{server.disk_bytes('views') / n_samples:.2f}"
            row["log_bytes_per_sample"] = f"{server.disk_bytes('log') / n_samples:.2f}"
            row["replay_samples_per_s"] = f"{n_samples / _replay_seconds(server):,.0f}"
    finally:
        if server.process is not None and server.process.poll() is None:
            server.stop(signal.SIGKILL)
    return row


def _settle(server: Server) -> float:
    """Wait until the process is idle; returns the seconds that took."""
    begin = time.monotonic()
    last = server.cpu_s()
    while time.monotonic() - begin < SETTLE_LIMIT_S:
        time.sleep(2.0)
        now = server.cpu_s()
        if now - last < IDLE_CPU_SHARE * 2.0:
            break
        last = now
    return time.monotonic() - begin


def _query_seconds(server: Server) -> str:
    """Best of three of a rate over everything."""
    best = float("inf")
    for _ in range(3):
        begin = time.monotonic()
        server.query(
            "/api/v1/query_range",
            query='sum by (job) (rate({__name__=~".+_total"}[5m]))',
            start=START_MS / 1000,
            end=START_MS / 1000 + 1500,
            step=15,
        )
        best = min(best, time.monotonic() - begin)
    return f"{best:.3f}"


def _replay_seconds(server: Server) -> float:
    begin = time.monotonic()
    command = [sys.executable, "-m", "tabor", "replay", "--data-dir", str(server.folder)]
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - begin


def _save(rows: Sequence[dict[str, str]], output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with (output / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    lines = [f"Machine: {platform.processor() or platform.machine()}, Python {platform.python_version()}", ""]
    lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(row.get(column, "") for column in columns) + " |" for row in rows]
    (output / "results.md").write_text("\n".join(lines) + "\n")
    print(f"\nsaved {output / 'results.csv'} and {output / 'results.md'}")


if __name__ == "__main__":
    main()
