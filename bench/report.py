"""Tables of what was measured: for the terminal, CSV and Markdown."""

from __future__ import annotations

import csv
import math
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.answers import difference
from bench.measure import Measured

REFERENCE = "prometheus"
RIVAL = "victoria-metrics"
US = "tabor"


@dataclass(frozen=True, slots=True)
class Asked:
    """One query on one load: seconds by server, and whose answer differs from the reference's, and how."""

    load: str
    name: str
    kind: str
    best_s: dict[str, float]
    median_s: dict[str, float]
    first_s: dict[str, float]
    wrong: dict[str, str]


def compare(results: Sequence[Measured]) -> list[Asked]:
    """The queries of one load side by side."""
    reference = next((one for one in results if one.server == REFERENCE), None)
    asked = []
    for i, answer in enumerate(results[0].answers):
        wrong = {}
        expected = None if reference is None else reference.answers[i].data
        for one in results:
            if reference is not None and one is not reference:
                text = difference(expected, one.answers[i].data)
                if text is not None:
                    wrong[one.server] = text
        asked.append(
            Asked(
                results[0].load,
                answer.query.name,
                "range" if answer.query.step_ms else "instant",
                {one.server: one.answers[i].best_s for one in results},
                {one.server: one.answers[i].median_s for one in results},
                {one.server: one.answers[i].seconds[0] for one in results},
                wrong,
            )
        )
    return asked


def geometric_mean(ratios: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else math.nan


def query_lines(asked: Sequence[Asked]) -> list[str]:
    """A Markdown table of best times in ms, with the ratio to the rival's, and the sums of it."""
    servers = list(asked[0].best_s) if asked else []
    header = ["load", "query", "kind", *(f"{server} ms" for server in servers)]
    ratio_to = [server for server in (RIVAL, REFERENCE) if server in servers and US in servers]
    header += [f"÷ {server}" for server in ratio_to]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for one in asked:
        cells = [one.load, one.name, one.kind, *(f"{one.best_s[server] * 1e3:.1f}" for server in servers)]
        cells += [f"{one.best_s[US] / one.best_s[server]:.2f}" for server in ratio_to]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    for server in ratio_to:
        for name, times in (("best", "best_s"), ("median", "median_s"), ("first", "first_s")):
            ratios = [getattr(one, times)[US] / getattr(one, times)[server] for one in asked]
            lines.append(
                f"{name} times, {US} ÷ {server}: geometric mean {geometric_mean(ratios):.3f}, worst "
                f"{max(ratios):.2f}, slower than 0.8: {sum(ratio > 0.8 for ratio in ratios)} of {len(ratios)}  "
            )
    for server in servers:
        n = sum(server in one.wrong for one in asked)
        if server != REFERENCE and REFERENCE in servers:
            lines.append(f"answers of {server} that differ from {REFERENCE}'s: {n} of {len(asked)}  ")
    return lines


def figure_lines(results: Sequence[Measured]) -> list[str]:
    """A Markdown table of a load's figures, a server a column."""
    names = list(dict.fromkeys(name for one in results for name in one.figures))
    lines = ["| figure | " + " | ".join(one.server for one in results) + " |", "|---|" + "---|" * len(results)]
    for name in names:
        lines.append(f"| {name} | " + " | ".join(_text(one.figures.get(name)) for one in results) + " |")
    return lines


def _text(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def machine() -> str:
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    load = os.getloadavg()[0]
    return (
        f"{time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}; {os.cpu_count()} cores of {cpu}; "
        f"Python {platform.python_version()}; other load on the machine at the end: {load:.1f}; "
        f"command: python -m bench {' '.join(sys.argv[1:])}"
    )


def save(results: Sequence[Measured], asked: Sequence[Asked], text: str, output: Path) -> None:
    """Write figures.csv, queries.csv and results.md."""
    output.mkdir(parents=True, exist_ok=True)
    with (output / "figures.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("load", "server", "figure", "value"))
        for one in results:
            writer.writerows((one.load, one.server, name, value) for name, value in one.figures.items())
    with (output / "queries.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("load", "query", "kind", "server", "best_s", "median_s", "first_s", "differs"))
        for row in asked:
            for server in row.best_s:
                times = (row.best_s[server], row.median_s[server], row.first_s[server])
                writer.writerow((row.load, row.name, row.kind, server, *times, row.wrong.get(server, "")))
    (output / "results.md").write_text(text)
