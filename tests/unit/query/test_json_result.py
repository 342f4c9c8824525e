"""Numbers and times in answers look exactly as Prometheus writes them."""

from __future__ import annotations

import itertools
import math
import struct

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.kernels.json_result import POINT_BYTES, write_points
from query.json_result import encode_data


def points(times_ms: list[int], values: list[float], offsets: list[int] | None = None) -> list[str]:
    column = np.array(values, dtype=np.float64)
    tokens = np.frombuffer(orjson.dumps(column, option=orjson.OPT_SERIALIZE_NUMPY), dtype=np.uint8).copy()
    bounds = np.array(offsets if offsets is not None else [0, len(values)], dtype=np.int64)
    out = np.zeros(max(len(values), 1) * POINT_BYTES, dtype=np.uint8)
    ends = np.zeros(bounds.size - 1, dtype=np.int64)
    length = write_points(
        bounds, np.array(times_ms, dtype=np.int64), column, tokens, np.empty(64, dtype=np.uint8), out, ends
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


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**64 - 1))
def test_every_finite_value_reads_back_bit_for_bit(bits: int) -> None:
    value = struct.unpack("<d", struct.pack("<Q", bits))[0]
    if not math.isfinite(value):
        return
    (text,) = points([0], [value])
    (pair,) = orjson.loads(f"[{text}]")
    assert struct.pack("<d", float(pair[1])) == struct.pack("<d", value)


def test_warnings_come_only_where_there_are_some() -> None:
    assert encode_data(["a"]) == b'{"status":"success","data":["a"]}'
    assert encode_data([], ["cut"]) == b'{"status":"success","data":[],"warnings":["cut"]}'
