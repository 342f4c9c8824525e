"""A histogram's bytes are corrupt, or read as the slow reader reads them; remote read can say what they say."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from common.errors import CorruptError
from common.histograms import EncodedHistograms, decode
from query.remote_read import histogram_message
from tests.oracles import histogram as oracle
from tests.oracles import native


def one_input(data: bytes) -> object:
    """data: a histogram as `docs/format/histogram.md` has it."""
    offsets = np.array([0, len(data)], dtype=np.int64)
    encoded = EncodedHistograms(
        np.zeros(1, dtype=np.int64), offsets, np.frombuffer(bytearray(data), dtype=np.uint8)
    )
    try:
        rows = decode(encoded)
    except CorruptError as error:
        return str(error)
    got = repr(with_floats(native.row(rows, 0)))
    assert got == repr(with_floats(native.normal(oracle.decode(data))))
    return got, histogram_message(data, 7)


def with_floats(histogram: oracle.NativeHistogram) -> oracle.NativeHistogram:
    """The same with all numbers floats, so that equal ones look equal, NaN and -0.0 too."""
    numbers = {
        field.name: float(getattr(histogram, field.name))
        for field in fields(histogram)
        if field.name in ("count", "sum", "zero_threshold", "zero_count")
    }
    sides = {name: tuple(map(float, getattr(histogram, name))) for name in ("positive", "negative", "bounds")}
    return replace(histogram, **numbers, **sides)
