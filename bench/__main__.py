"""`python -m bench`: Tabor and its peers, one after another, on the same requests and the same queries.

CPU is of the whole process tree, from the first request to its end after a forced flush. Requests are made before
anything is measured. Ends with 1 if an answer of Tabor's differs from Prometheus'.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import loads, queries, report
from bench.loads import Load
from bench.measure import Effort, Measured, measure
from bench.servers import SERVERS, available

QUICK_LOADS = ("counters", "active", "devops")
QUICK_SCALE = 0.02


@dataclass(frozen=True, slots=True)
class Result:
    """All figures of a run, and the text that was printed."""

    measured: list[Measured]
    asked: list[report.Asked]
    text: str

    @property
    def wrong(self) -> list[str]:
        """Answers of Tabor's that differ from Prometheus'."""
        return [
            f"{one.load}, {one.kind} {one.name}: {one.wrong[report.US]}"
            for one in self.asked
            if report.US in one.wrong
        ]


def main() -> int:
    arguments = _arguments()
    names = arguments.loads
    effort = Effort(connections=arguments.connections, repeats=arguments.repeats, with_kill=not arguments.no_kill)
    if arguments.quick:
        effort = Effort(connections=arguments.connections, repeats=3, seconds_per_query=0.3, idle_s=0.5)
        names = arguments.loads if arguments.loads != list(loads.NAMES) else [*QUICK_LOADS]
        if arguments.recorded:
            names = ["recorded", *names]
    # Kernels are compiled once per machine; that is not to be in a server's first figures.
    subprocess.run([sys.executable, "-c", "from tabor.kernels import ensure; ensure()"], check=True)
    scale = arguments.scale if arguments.scale is not None else (QUICK_SCALE if arguments.quick else 1.0)
    result = run(names, scale, arguments.servers, effort, arguments.recorded, arguments.scratch)
    report.save(result.measured, result.asked, result.text, arguments.output)
    print(f"\nsaved in {arguments.output}: results.md, figures.csv, queries.csv")
    for text in result.wrong:
        print(f"ANSWER DIFFERS from Prometheus': {text}", file=sys.stderr)
    return 1 if result.wrong else 0


def run(
    names: Sequence[str],
    scale: float,
    servers: Sequence[str],
    effort: Effort,
    recordings: Sequence[Path] = (),
    scratch: Path | None = None,
) -> Result:
    """Measure the servers that there are on the loads; prints as it goes."""
    lines: list[str] = []

    def say(*texts: str) -> None:
        lines.extend(texts)
        print("\n".join(texts), flush=True)

    present = [name for name in servers if available(name)]
    for name in servers:
        if name not in present:
            say(f"**{name} IS NOT INSTALLED and is left out** (Debian: apt-get install {name})", "")
    measured: list[Measured] = []
    asked: list[report.Asked] = []
    for name in names:
        load = loads.build(name, scale, recordings)
        if load is None:
            say("", "**NO RECORDING GIVEN: the load of real traffic is left out** (--recorded FILE …)")
            continue
        say("", f"## {name}: {load.n_samples:,} samples of {load.n_series:,} series", "")
        of_load = _run_load(load, present, effort, scratch)
        measured += of_load
        asked += report.compare(of_load)
        # The answers may be large, and have been compared.
        for one in of_load:
            one.answers.clear()
        say(*report.figure_lines(of_load), "", *report.query_lines([one for one in asked if one.load == name]))
    if asked and len(names) > 1:
        say("", "## All queries", "", *report.query_lines(asked)[2 + len(asked) :])
    say("", report.machine())
    return Result(measured, asked, "\n".join(lines) + "\n")


def _run_load(load: Load, servers: Sequence[str], effort: Effort, scratch: Path | None) -> list[Measured]:
    results = []
    for name in servers:
        print(f"{load.name}: {name} …", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="tabor-bench-", dir=scratch) as folder:
            results.append(measure(SERVERS[name], load, queries.of(load), effort, Path(folder)))
    return results


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small loads, less than two minutes")
    parser.add_argument("--loads", nargs="+", choices=loads.NAMES, default=list(loads.NAMES), metavar="LOAD")
    parser.add_argument("--scale", type=float, help="size of the loads, 1 for those that the results name")
    parser.add_argument("--servers", nargs="+", choices=list(SERVERS), default=list(SERVERS))
    parser.add_argument(
        "--recorded", nargs="*", type=Path, default=[], help="recordings of real traffic, see bench.record"
    )
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each query")
    parser.add_argument("--no-kill", action="store_true", help="leave out what follows SIGKILL")
    parser.add_argument("--scratch", type=Path, help="folder for the servers' data")
    parser.add_argument("--output", type=Path, default=Path("bench/results"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
