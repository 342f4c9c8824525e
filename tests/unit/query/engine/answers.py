"""Series in a short notation, and answers as plain Python, for the tests of the engine."""

from __future__ import annotations

import math

import numpy as np

from common.store import STALE_NAN_BITS
from query.engine.engine import Engine, EngineConfig, QueryResult
from query.engine.gofmt import label_set
from query.engine.values import RangeVector, Scalar, String, Vector
from query.promql.parser import parse_selector
from tests.memory_store import MemoryStore

STALE = float(np.array([STALE_NAN_BITS]).view(np.float64)[0])
MINUTE = 60_000


def series(text: str, *, every_ms: int = MINUTE) -> MemoryStore:
    """A store from lines such as `up{job="a"} 1 2 _ stale`, one sample every `every_ms` from 0."""
    store = MemoryStore()
    for line in filter(None, map(str.strip, text.splitlines())):
        selector, _, rest = line.partition("} ") if "{" in line else line.partition(" ")
        matchers = parse_selector(selector + "}" if "{" in line else selector)
        samples = [
            (k * every_ms, STALE if word == "stale" else float(word))
            for k, word in enumerate(rest.split())
            if word != "_"
        ]
        store.add({matcher.name: matcher.value for matcher in matchers}, samples)
    return store


def instant(store: MemoryStore, query: str, time_ms: int = 0) -> object:
    """{labels: value} of a vector in its order, the number of a scalar, the text of a string."""
    return plain(Engine(store, EngineConfig()).instant(query, time_ms))


def over_range(store: MemoryStore, query: str, end_ms: int, step_ms: int = MINUTE) -> object:
    """{labels: [value or None for each step]} from 0 to end_ms."""
    return plain(Engine(store, EngineConfig()).range(query, 0, end_ms, step_ms))


def plain(result: QueryResult) -> object:
    value = result.value
    if isinstance(value, String):
        return value.value
    if isinstance(value, Scalar):
        return float(value.values[0])
    if isinstance(value, RangeVector):
        bounds = zip(value.offsets[:-1], value.offsets[1:], strict=True)
        return {
            label_set(labels): list(zip(value.timestamps[a:b].tolist(), value.values[a:b].tolist(), strict=True))
            for labels, (a, b) in zip(value.labels, bounds, strict=True)
        }
    assert isinstance(value, Vector)
    rows = [
        [number(v) if p else None for v, p in zip(values, present, strict=True)]
        for values, present in zip(value.values.tolist(), value.present.tolist(), strict=True)
    ]
    names = [label_set(labels) for labels in value.labels]
    assert len(set(names)) == len(names)
    return dict(zip(names, rows if result.kind == "matrix" else [row[0] for row in rows], strict=True))


def number(value: float) -> float | str:
    """NaN as text, so that answers compare equal."""
    return "NaN" if math.isnan(value) else value
