"""Random expressions are answered as Debian's Prometheus answers them.

`python -m tests.acceptance.test_random_promql --seed 7 --count 10000` asks many, and prints each that differs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
import struct
import sys
import tempfile
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from bench.requests import compress, encode_labels, field
from bench.servers import SERVERS, Server
from common.labels import uvarint
from tests.acceptance.random_promql import (
    BEGIN_MS,
    EVALUATION_MS,
    INTERVAL_S,
    N_SAMPLES,
    STALE_BITS,
    Expressions,
    data,
)

pytestmark = pytest.mark.acceptance
COUNT = 400
EARLIEST_S = 12 * 60
"""Behind the first sample by more than any range."""

Answer: TypeAlias = "dict[str, list[tuple[float, float]]] | str"
"""Samples by label set, or that there was an error."""


@contextlib.contextmanager
def both(folder: Path, seed: int) -> Iterator[tuple[Server, Server]]:
    """Prometheus and Tabor with the same data."""
    servers = SERVERS["prometheus"](folder), SERVERS["tabor"](folder)
    rows = []
    for labels, samples in data(seed):
        row = encode_labels(labels)
        for time_ms, value in samples:
            bits = struct.pack("<Q", STALE_BITS) if value is None else struct.pack("<d", value)
            row += field(2, b"\x09" + bits + b"\x10" + uvarint(time_ms))
        rows.append(row)
    try:
        for server in servers:
            server.start()
            server.write(compress(rows))
        yield servers
    finally:
        for server in servers:
            server.kill()


def question(seed: int, number: int) -> tuple[str, dict[str, str]]:
    """Path and parameters: at one time or at some."""
    dice = random.Random(f"times {seed} {number}")
    span_s = N_SAMPLES * INTERVAL_S - EARLIEST_S
    time_ms = BEGIN_MS // 1000 * 1000 + (EARLIEST_S + dice.randrange(span_s)) * 1000 + EVALUATION_MS
    time = f"{time_ms / 1000:.3f}"
    query, at_many = Expressions(seed, number).any()
    if dice.random() < 0.3 or not at_many:
        return "/api/v1/query", {"query": query, "time": time}
    step_s = dice.choice((13, 60, 97))
    end = f"{(time_ms + step_s * 1000 * dice.randrange(12)) / 1000:.3f}"
    return "/api/v1/query_range", {"query": query, "start": time, "end": end, "step": str(step_s)}


def ask(server: Server, path: str, parameters: dict[str, str]) -> Answer:
    status, body = server.get(f"{path}?{urllib.parse.urlencode(parameters)}")
    answer = json.loads(body)
    if status in (400, 422):
        return str(answer["error"])
    assert status == 200, (server.name, status, body[:300])
    result = answer["data"]["result"]
    if answer["data"]["resultType"] == "scalar":
        return {"": [sample(result)]}
    return {
        json.dumps(row["metric"], sort_keys=True): [
            sample(one) for one in (row["values"] if "values" in row else [row["value"]])
        ]
        for row in result
    }


def sample(of: list[Any]) -> tuple[float, float]:
    return float(of[0]), float(of[1])


def alike(one: Answer, other: Answer) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return isinstance(one, str) and isinstance(other, str)
    return one.keys() == other.keys() and all(
        [t for t, _ in samples] == [t for t, _ in other[labels]]
        and all(close(a, b) for (_, a), (_, b) in zip(samples, other[labels], strict=True))
        for labels, samples in one.items()
    )


def close(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)


def differing(servers: tuple[Server, Server], seed: int, numbers: range) -> Iterator[str]:
    """What is not answered alike."""
    for number in numbers:
        path, parameters = question(seed, number)
        theirs, ours = (ask(server, path, parameters) for server in servers)
        if not alike(theirs, ours):
            yield f"--seed {seed}, number {number}: {path} {parameters}\nPrometheus: {theirs}\nTabor: {ours}\n"


def test_random_expressions_are_answered_as_prometheus_answers_them(tmp_path: Path) -> None:
    with both(tmp_path, 1) as servers:
        assert list(differing(servers, 1, range(COUNT))) == []


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance.test_random_promql")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first expression")
    parser.add_argument("--count", type=int, default=COUNT)
    options = parser.parse_args()
    n_differing = 0
    with tempfile.TemporaryDirectory() as folder, both(Path(folder), options.seed) as found:
        for difference in differing(found, options.seed, range(options.first, options.first + options.count)):
            n_differing += 1
            print(difference, flush=True)
    print(f"{n_differing} of {options.count} expressions are answered otherwise")
    sys.exit(n_differing > 0)
