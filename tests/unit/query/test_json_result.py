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

from common.kernels.json_result import POINT_BYTES, write_points
from query.json_result import encode_data
from tests.oracles import json_result as oracle


def points(times_ms: list[int], values: list[float], offsets: list[int] | None = None) -> list[str]:
    column = np.array(values, dtype=np.float64)
    bounds = np.array(offsets if offsets is not None else [0, len(values)], dtype=np.int64)
    out = np.zeros(max(len(values), 1) * POINT_BYTES, dtype=np.uint8)
    ends = np.zeros(bounds.size - 1, dtype=np.int64)
    length = write_points(bounds, np.array(times_ms, dtype=np.int64), column, column.view(np.uint64), out, ends)
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
