"""Histograms among the floats of a query."""

from __future__ import annotations

import numpy as np
import pytest

from common.histograms import EncodedHistograms, decode
from common.labels import StringPool
from query.engine.cells import HistogramPool
from query.engine.engine import QueryResult
from query.engine.labeling import empty_table
from query.engine.values import Vector
from query.json_result import encode_result, upper_bound
from tests.oracles.histogram import NativeHistogram

ONE = NativeHistogram(0, 4, 8.0, 0.5, 1, ((1, 2),), (1, 2))


@pytest.mark.parametrize("first_is_there", [True, False])
def test_what_the_memory_had_where_nothing_is_present_is_no_histogram(first_is_there: bool) -> None:
    data = ONE.encode()
    encoded = EncodedHistograms(np.zeros(1, np.int64), np.array([0, len(data)]), np.frombuffer(data, np.uint8))
    of_another = HistogramPool()
    for _ in range(3):
        left = of_another.add(decode(encoded))
    pool = HistogramPool()
    values = np.array([[pool.add(decode(encoded))[0], left[0], 1.0]])
    present = np.array([[first_is_there, False, True]])
    vector = Vector(empty_table(StringPool(), 1), values, present, np.zeros(1, np.bool_))
    value = pool.unfolded(vector)
    if first_is_there:
        assert value.histograms is not None
        assert value.histograms.index.tolist() == [[0, -1, -1]]
    else:
        assert value.histograms is None
    result = QueryResult("matrix", np.array([0, 1000, 2000]), value)
    body = b"".join(encode_result(result))
    assert len(body) <= upper_bound(result)
    assert body.count(b'"count"') == first_is_there
