"""Numbers and times in answers look exactly as Prometheus writes them."""

from __future__ import annotations

import itertools
import json
import math
import os
import struct
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import parallel
from common.kernels.json_result import POINT_BYTES, write_rows
from query import json_result
from query.engine.engine import Engine, EngineConfig, QueryResult
from query.json_result import encode_data, encode_result
from tests.memory_store import MemoryStore
from tests.oracles import json_result as oracle


def points(times_ms: list[int], values: list[float], offsets: list[int] | None = None) -> list[str]:
    column = np.array(values, dtype=np.float64)
    bounds = np.array(offsets if offsets is not None else [0, len(values)], dtype=np.int64)
    # Filled with what would be seen if it were left.
    out = np.full(len(values) * POINT_BYTES, ord("#"), dtype=np.uint8)
    ends = np.zeros(bounds.size - 1, dtype=np.int64)
    nothing = np.zeros(0, dtype=np.uint8)
    times = np.array(times_ms, dtype=np.int64)
    length = write_rows(
        nothing, np.zeros_like(ends), nothing, bounds, times, column, column.view(np.uint64), out, ends
    )
    text = out[:length].tobytes().decode()
    starts = [0, *ends.tolist()]
    return [text[a:b] for a, b in itertools.pairwise(starts)]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "-0"),
        (1.0, "1"),
        (-17.5, "-17.5"),
        (0.1, "0.1"),
        (1e15, "1000000000000000"),
        (1e16, "10000000000000000"),
        (1.2345678901234568e17, "123456789012345680"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (1.5e300, "1.5e+300"),
        (1e-4, "0.0001"),
        (1.25e-5, "0.0000125"),
        (1e-6, "0.000001"),
        (9.5e-7, "9.5e-07"),
        (5e-324, "5e-324"),
        (math.nan, "NaN"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
    ],
)
def test_a_value_is_written_as_go_writes_it(value: float, text: str) -> None:
    assert points([0], [value]) == [f'[0,"{text}"]']


@pytest.mark.parametrize(
    ("time_ms", "text"),
    [(0, "0"), (1000, "1"), (1001, "1.001"), (1500, "1.500"), (-1, "-0.001"), (1435781451781, "1435781451.781")],
)
def test_a_time_has_three_decimals_only_where_it_has_milliseconds(time_ms: int, text: str) -> None:
    assert points([time_ms], [1.0]) == [f'[{text},"1"]']


def test_rows_are_cut_where_their_series_end() -> None:
    assert points([1000, 2000, 3000], [1, 2, 3], [0, 1, 1, 3]) == ['[1,"1"]', "", '[2,"2"],[3,"3"]']


def of_bits(bits: int) -> float:
    value: float = struct.unpack("<d", struct.pack("<Q", bits))[0]
    return value


EDGES = [of_bits((exponent << 52) + add & (1 << 63) - 1) for exponent in range(2047) for add in (-1, 0, 1)]
"""Around every power of two, where the floats below are twice as dense as those above."""


def test_every_power_of_two_and_its_neighbours_have_the_shortest_digits() -> None:
    values = [*EDGES, 1.7976931348623157e308, 9007199254740993.0, 1e22, 1e23, 5e-324]
    assert points([0] * len(values), values, list(range(len(values) + 1))) == [
        f'[0,"{oracle.number(value)}"]' for value in values
    ]


any_bits = st.integers(0, 2**64 - 1).map(of_bits)
decimals = st.builds(lambda digits, power: digits / 10**power, st.integers(-(10**17), 10**17), st.integers(0, 9))


@settings(max_examples=300, deadline=None)
@given(st.lists(any_bits | decimals | st.integers(-(10**21), 10**21).map(float), min_size=1, max_size=20))
def test_every_value_has_the_digits_that_give_it_back(values: list[float]) -> None:
    assert points([0] * len(values), values, list(range(len(values) + 1))) == [
        f'[0,"{oracle.number(value)}"]' for value in values
    ]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(-(2**63) + 1, 2**63 - 1), max_size=5), max_size=5))
def test_each_row_has_its_own_times_though_they_are_remembered(rows: list[list[int]]) -> None:
    offsets = [0, *itertools.accumulate(map(len, rows))]
    times = [time for row in rows for time in row]
    texts = points(times, [1.0] * len(times), offsets)
    for row, text in zip(rows, texts, strict=True):
        shown = [entry[0] for entry in json.loads(f"[{text}]", parse_float=Decimal, parse_int=Decimal)]
        assert [int(time * 1000) for time in shown] == row


@pytest.fixture
def in_small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "n_cores", lambda: 3)
    monkeypatch.setattr(json_result, "CHUNK_POINTS", 7)


def some_series() -> tuple[MemoryStore, list[dict[str, str]]]:
    """Thirty series, the k-th with k % 4 samples of values k, k + 0.1 … at 0 s, 1 s …"""
    sets = [{"__name__": "m", "i": f"{k:02}"} | ({"odd": 'a"b'} if k % 2 else {}) for k in range(30)]
    samples = [[(1000 * n, k + n / 10) for n in range(k % 4)] for k in range(30)]
    return MemoryStore(list(zip(sets, samples, strict=True))), sets


@pytest.mark.usefixtures("in_small_chunks")
def test_an_answer_of_many_chunks_is_one_json() -> None:
    store, sets = some_series()
    engine = Engine(store, EngineConfig())
    answer = json.loads(b"".join(encode_result(engine.range("m", 0, 2000, 1000))))
    expected = [
        # A sample is seen for five minutes.
        {"metric": one, "values": [[n, f"{k + min(n, k % 4 - 1) / 10:g}"] for n in range(3)]}
        for k, one in enumerate(sets)
        if k % 4
    ]
    assert sorted(answer["data"]["result"], key=lambda one: one["metric"]["i"]) == expected
    answer = json.loads(b"".join(encode_result(engine.instant("m", 0))))
    assert sorted(answer["data"]["result"], key=lambda one: one["metric"]["i"]) == [
        {"metric": one, "value": [0, str(k)]} for k, one in enumerate(sets) if k % 4
    ]
    answer = json.loads(b"".join(encode_result(engine.instant("nothing", 0))))
    assert answer["data"]["result"] == []


@pytest.mark.usefixtures("in_small_chunks")
def test_a_series_longer_than_a_chunk_is_one_of_its_own() -> None:
    store, lengths = MemoryStore(), (20, 1, 9, 30, 8)
    for i, n in enumerate(lengths):
        store.add({"__name__": "m", "i": str(i)}, [(1000 * k, k) for k in range(n)])
    answer = json.loads(b"".join(encode_result(Engine(store, EngineConfig()).instant("m[1m]", 40_000))))
    found = {one["metric"]["i"]: one["values"] for one in answer["data"]["result"]}
    assert found == {str(i): [[k, str(k)] for k in range(n)] for i, n in enumerate(lengths)}


@pytest.mark.usefixtures("in_small_chunks")
def test_an_answer_that_is_given_up_is_not_encoded_further(monkeypatch: pytest.MonkeyPatch) -> None:
    written = 0

    def counted(*arguments: object) -> int:
        nonlocal written
        written += 1
        return write_rows(*arguments)

    monkeypatch.setattr(json_result, "write_rows", counted)
    result: QueryResult = Engine(some_series()[0], EngineConfig()).range("m", 0, 2000, 1)
    chunks = encode_result(result)
    for _ in range(4):
        next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    # Three chunks, what was begun ahead, and what was being encoded; of thirty series.
    assert written <= 3 + 2 * parallel.AHEAD_PER_CORE * 3


def test_warnings_come_only_where_there_are_some() -> None:
    assert encode_data(["a"]) == b'{"status":"success","data":["a"]}'
    assert encode_data([], ["cut"]) == b'{"status":"success","data":[],"warnings":["cut"]}'


_CODE = """
from tests.unit.query.test_json_result import EDGES, oracle, points
values = [*EDGES[::37], 0.1, 12.25, 1e15, -3.0]
texts = points([1, -1500] * len(values), values * 2, [0, 2 * len(values)])[0]
assert texts.count('"') == 4 * len(values)
for value in values:
    assert f',"{oracle.number(value)}"]' in texts, value
"""


def test_the_text_is_the_same_without_compiled_kernels() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _CODE],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
