"""What the bench sends is what it says it sends."""

from __future__ import annotations

import struct

import cramjam
import numpy as np
import pytest

from bench import loads
from bench.requests import Request, Template, compress, encode_labels, encode_sample, fields


def samples(request: Request) -> list[tuple[bytes, float, int]]:
    """(labels, value, time) of each sample of a request, read slowly."""
    found = []
    for _, series in fields(bytes(cramjam.snappy.decompress_raw(request.body))):
        labels = b"".join(data for number, data in fields(series) if number == 1)
        for number, data in fields(series):
            if number == 2:
                time = sum((byte & 0x7F) << (7 * i) for i, byte in enumerate(data[10:]))
                found.append((labels, struct.unpack("<d", data[1:9])[0], time))
    return found


def test_a_filled_template_is_what_encoding_one_by_one_gives() -> None:
    labels = [encode_labels({"__name__": "m", "i": "x" * n}) for n in (1, 130, 7)]
    values = np.array([[1.5, -2.0], [np.inf, 0.1], [5e-324, 1e300]])
    times = np.array(
        [[1_790_000_000_000, 1_790_000_015_000], [40_000_000_000, 40_000_000_128], [2**41, 2**42 - 1]]
    )
    expected = compress(
        label + b"".join(encode_sample(v, t) for v, t in zip(row, row_times, strict=True))
        for label, row, row_times in zip(labels, values.tolist(), times.tolist(), strict=True)
    )
    assert Template(labels, 2).fill(values, times) == Request(expected, 6)


@pytest.mark.parametrize("name", sorted(loads.LOADS))
def test_a_load_has_each_sample_once_and_the_series_that_it_counts(name: str) -> None:
    load = loads.build(name, 0.001, [])
    assert load is not None
    sent = [sample for request in load.requests for sample in samples(request)]
    assert len(sent) == load.n_samples == len({(labels, time) for labels, _, time in sent})
    assert len({labels for labels, *_ in sent}) == load.n_series
    assert max(time for *_, time in sent) <= load.newest_ms
    assert not any(time % 10 for *_, time in sent), "a query ends at 7 ms, where no sample may lie"


def test_five_percent_of_the_samples_out_of_order_are_late() -> None:
    load = loads.build("out-of-order", 0.05, [])
    assert load is not None
    newest: dict[bytes, int] = {}
    late = 0
    for labels, _, time in (sample for request in load.requests for sample in samples(request)):
        late += time < newest.get(labels, 0)
        newest[labels] = max(time, newest.get(labels, 0))
    assert 0.03 < late / load.n_samples < 0.06
