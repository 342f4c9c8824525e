"""Streamed remote read: chunks and frames against a slow reader, and against bytes of Prometheus' encoder."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import CorruptError
from common.histograms import CUSTOM_BOUNDS
from common.kernels.crc32c import crc32c
from common.store import MAX_TIME_MS, MIN_TIME_MS
from query.remote_chunks import MAX_FRAME_BYTES, PART_BYTES, frames, upper_bound
from tests.memory_store import MemoryStore
from tests.oracles import prometheus_chunk as oracle
from tests.oracles.histogram import NativeHistogram

INTERPRETED = os.environ.get("NUMBA_DISABLE_JIT") == "1"
MANY = settings(deadline=None, max_examples=30 if INTERPRETED else 200)
Sample = tuple[int, float | NativeHistogram]
STALE = oracle.from_bits(0x7FF0000000000002)
INTEGERS = NativeHistogram(
    3, 12, 18.4, 2.0**-128, 2, ((-2, 2), (1, 1)), (1, 3, 2), ((5, 2),), (2, 3), is_float=False
)
CUSTOM = NativeHistogram(
    -53, 6, 18.4, positive_spans=((0, 2), (5, 2)), positive=(1, 2, 1, 2), is_float=False,
    bounds=(-1.5, 0, 0.005, 0.25, 1 / 3, 33554.43, 33554.431, 1e9),
)  # fmt: skip
GAUGE = NativeHistogram(-4, 12.5, -18.4, 0.1, 2, ((0, 2),), (1.5, 9.0), hint=3)

NUMBERS = st.integers(0, (1 << 64) - 1).map(oracle.from_bits) | st.sampled_from([0.0, -0.0, STALE, math.inf, 1.5])
STEPS = st.sampled_from(
    [15_000, 15_000, 15_000, 15_001, 1, 23_192, 23_193, 80_536, 80_537, 539_288, 539_289, 1 << 40]
)


def body(series: Sequence[Sequence[Sample]], query_index: int = 0) -> bytes:
    store = MemoryStore()
    for i, samples in enumerate(series):
        encoded = [(t, v.encode() if isinstance(v, NativeHistogram) else v) for t, v in samples]
        store.add({"__name__": "m", "series": f"{i:06d}"}, encoded)
    selection = store.select([], MIN_TIME_MS, MAX_TIME_MS, 1 << 40)
    out = b"".join(frames(selection, query_index))
    assert len(out) <= upper_bound(selection) + 100 * max(1, len(selection.labels))
    return out


def chunks(*samples: Sample) -> list[tuple[int, str]]:
    (frame,) = oracle.frames(body([samples]))
    return [(kind, data.hex()) for _, _, kind, data in frame.chunks]


def same(one: float, other: float) -> bool:
    return oracle.to_bits(one) == oracle.to_bits(other)


@st.composite
def times(draw: st.DrawFn, n: int) -> list[int]:
    """Ascending, regular or not, of any sign; sometimes as far apart as can be."""
    time = draw(st.integers(-(1 << 42), 1 << 42))
    steps = draw(st.lists(STEPS, min_size=n, max_size=n))
    out = np.cumsum([time, *steps[:-1]]).tolist() if n else []
    if n and draw(st.integers(0, 5)) == 0:
        out[0] = MIN_TIME_MS
    if n > 1 and draw(st.integers(0, 5)) == 0:
        out[-1] = MAX_TIME_MS
    return out


@st.composite
def float_series(draw: st.DrawFn) -> list[Sample]:
    n = draw(st.integers(1, 300))
    values = draw(st.lists(NUMBERS, min_size=1, max_size=12))
    return [(time, values[i % len(values)]) for i, time in enumerate(draw(times(n)))]


@st.composite
def layouts(draw: st.DrawFn) -> NativeHistogram:
    spans = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3)), max_size=3)
    is_float = draw(st.booleans())
    if draw(st.integers(0, 3)) == 0:
        bounds = draw(st.lists(st.sampled_from([-2.0, 0.0, 0.1, 0.25, 1 / 3, 33554.43, 1e5, 1e300]), unique=True))
        return NativeHistogram(
            CUSTOM_BOUNDS, positive_spans=((0, 1),), bounds=tuple(sorted(bounds)), is_float=is_float
        )
    threshold = draw(st.sampled_from([0.0, 2.0**-128, 2.0**-243, 2.0**-244, 1024.0, 2048.0, 1e-3]))
    sides = [tuple(draw(spans)) for _ in range(2)]
    if sides[0]:
        sides[0] = ((draw(st.integers(-100, 100)), sides[0][0][1]), *sides[0][1:])
    schema = draw(st.integers(-4, 8))
    return NativeHistogram(
        schema, zero_threshold=threshold, positive_spans=sides[0], negative_spans=sides[1], is_float=is_float
    )


def counts(layout: NativeHistogram, total: int, n: int) -> tuple[float, ...]:
    own = [total // 7 * (i + 1) for i in range(n)]
    return tuple(one + 0.5 for one in own) if layout.is_float else tuple(own)


@st.composite
def mixed_series(draw: st.DrawFn) -> list[Sample]:
    """Floats and histograms; counts mostly grow."""
    known = draw(st.lists(layouts(), min_size=1, max_size=2))
    samples: list[Sample] = []
    layout, total = known[0], 0
    for time in draw(times(draw(st.integers(1, 40)))):
        action = draw(st.integers(0, 14))
        if action == 0:
            samples.append((time, draw(NUMBERS)))
            continue
        if action == 1:
            layout = draw(st.sampled_from(known))
        total = 0 if action == 2 else total + draw(st.integers(0, 1 << draw(st.integers(0, 40))))

        sizes = [sum(length for _, length in side) for side in (layout.positive_spans, layout.negative_spans)]
        samples.append(
            (
                time,
                replace(
                    layout,
                    count=float(total) if layout.is_float else total % (1 << 64),
                    sum=draw(NUMBERS),
                    zero_count=0 if layout.schema == CUSTOM_BOUNDS else counts(layout, total, 1)[0],
                    positive=counts(layout, total, sizes[0]),
                    negative=counts(layout, total, sizes[1]),
                    hint=draw(st.sampled_from([0, 0, 0, 0, 1, 2, 3])),
                ),
            )
        )  # fmt: skip
    return samples


def told(before: Sample | None, sample: NativeHistogram, hint: int) -> bool:
    """Whether a reader may be told this of a histogram's reset."""
    if sample.hint == 3 or hint == 3:
        return sample.hint == hint
    if before is None or isinstance(before[1], float):
        return hint == sample.hint
    last = before[1]
    pairs = [(last.count, sample.count), (last.zero_count, sample.zero_count)]
    pairs += [
        *zip(last.positive, sample.positive, strict=False),
        *zip(last.negative, sample.negative, strict=False),
    ]
    own, other = (
        replace(h, count=0, sum=0.0, zero_count=0, positive=(), negative=(), hint=h.hint == 3)
        for h in (last, sample)
    )
    is_less = own != other or any(now < old for old, now in pairs)
    return hint == sample.hint or (hint == 2 and not is_less and sample.hint != 1) or (hint == 1 and is_less)


def check(stored: Sequence[Sample], found: Sequence[Sample]) -> None:
    assert [time for time, _ in found] == [time for time, _ in stored]
    before: Sample | None = None
    for (time, own), (_, other) in zip(stored, found, strict=True):
        if isinstance(own, NativeHistogram):
            assert isinstance(other, NativeHistogram)
            assert same(own.sum, other.sum)
            assert replace(own, sum=0.0, hint=0) == replace(other, sum=0.0, hint=0)
            assert told(before, own, other.hint), (before, own, other.hint)
        else:
            assert isinstance(other, float)
            assert same(own, other)
        before = time, own


@pytest.mark.parametrize(
    ("samples", "kind", "golden"),
    [
        (
            [
                (-5000, 1.5),
                (10000, 1.5),
                (25000, -0.0),
                (40001, STALE),
                (40002, oracle.from_bits(0x7FF8000000000123)),
                (140002, math.inf),
                (1790000000000, 12.0),
                (1790000015000, 24.0),
                (1790000030000, 24.25),
                (1790000045007, 1e300),
            ],
            oracle.XOR,
            "000a8f4e3ff80000000000009875301b7ff8001c1ffff8000000000001dc568d9a4000000000090f0c34fd0000000000247e0000"
            "0341889984fd88bff7ffffffcbe7763e2f50027107000f8bcf83e90f22001d67",
        ),
        (
            [
                (
                    1000 + i * 15000 + i % 2,
                    replace(
                        INTEGERS,
                        count=12 + 9 * i * i,
                        zero_count=2 + i,
                        sum=18.4 * (i + 1),
                        positive=(1 + i, 3 + i, 2 + 301 * i),
                        negative=(2 + i, 3 + i),
                    ),
                )
                for i in range(4)
            ],
            oracle.HISTOGRAM,
            "000400749ca568c632c2f8fa319240326666666666668caf28fc1d4ce263a43f1784b22b649b349ffffffffffff04b24d7ae7fff"
            "ffffffffc0",
        ),
        (
            [
                (-1000 + i * 15000, replace(GAUGE, count=12.5 - i, sum=-18.4 * (i + 1), positive=(1.5, 9.0 - i)))
                for i in range(3)
            ],
            oracle.FLOAT_HISTOGRAM,
            "0003c0ff3fb999999999999ade4647b06100a4000000000001000000000000000300c9999999999998ffe0000000000001008800"
            "0000000003e0ea63607da43edc0d16cd27fffffffffffda84f",
        ),
        (
            [
                (1000 + i * 15000, replace(CUSTOM, count=6 + 2 * i, positive=(1, 2, 1, 2 + 2 * i)))
                for i in range(3)
            ],
            oracle.HISTOGRAM,
            "00030000ee5ca49615885ffc00000000000046dcfb1feaaaaaaaaaaaaafeffffff9038189372b020c48839b9aca00000001e3e8b"
            "100c999999999999a31bc7e0ea62409000",
        ),
    ],
    ids=["floats", "integers", "gauges", "custom bounds"],
)
def test_chunks_have_the_bytes_that_prometheus_writes(samples: list[Sample], kind: int, golden: str) -> None:
    assert chunks(*samples) == [(kind, golden)]


@MANY
@given(st.lists(float_series(), min_size=1, max_size=3))
def test_floats_survive_bit_by_bit(series: list[list[Sample]]) -> None:
    found = oracle.frames(body(series, 7))
    assert [frame.query for frame in found] == [7] * len(series)
    assert [frame.labels[1][1] for frame in found] == [f"{i:06d}".encode() for i in range(len(series))]
    for samples, frame in zip(series, found, strict=True):
        check(samples, frame.samples())
        assert len(frame.chunks) == -(-len(samples) // 120)


@MANY
@given(mixed_series())
def test_histograms_survive_among_floats_and_resets_are_not_hidden(samples: list[Sample]) -> None:
    (frame,) = oracle.frames(body([samples]))
    check(samples, frame.samples())


def test_histograms_of_one_layout_share_chunks_of_at_most_120() -> None:
    samples: list[Sample] = [(i, replace(INTEGERS, count=12 + i)) for i in range(250)]
    (frame,) = oracle.frames(body([samples]))
    assert [len(oracle.histograms(chunk[3], is_float=False)) for chunk in frame.chunks] == [120, 120, 10]


def test_what_became_less_begins_a_chunk_that_says_so() -> None:
    less = [
        replace(INTEGERS, count=11),
        replace(INTEGERS, zero_count=1),
        replace(INTEGERS, positive=(1, 2, 3)),
        replace(INTEGERS, negative=(1, 4)),
        replace(INTEGERS, hint=1),
    ]
    for one in [*less, *(replace(one, is_float=True) for one in less)]:
        first = replace(INTEGERS, is_float=one.is_float)
        (frame,) = oracle.frames(body([[(1, first), (2, first), (3, one)]]))
        assert [chunk[:2] for chunk in frame.chunks] == [(1, 2), (3, 3)]
        assert [sample[1].hint for sample in frame.samples()] == [0, 2, 1]  # type: ignore[union-attr]


def test_a_series_is_divided_among_frames_only_if_it_is_larger_than_one() -> None:
    n = 2_000 if INTERPRETED else 400_000
    noise = np.random.default_rng(3).random(n).tolist()
    long: list[Sample] = [(15_000 * i, value) for i, value in enumerate(noise)]
    found = oracle.frames(body([long[:7], long, long[:7], long[:121]]))
    parts = [frame for frame in found if frame.labels[1][1] == b"000001"]
    assert len(found) == 3 + len(parts)
    assert all(frame.size < MAX_FRAME_BYTES + 100 for frame in found)
    assert INTERPRETED or len(parts) > 2
    assert all(frame.size > MAX_FRAME_BYTES - PART_BYTES for frame in parts[:-1])
    check(long, [sample for frame in parts for sample in frame.samples()])


def test_large_histograms_are_cut_into_frames_too() -> None:
    n = 200 if INTERPRETED else 9_000
    wide = NativeHistogram(0, 1, 1.0, positive_spans=((0, n),), positive=(0.5,) * n)
    samples: list[Sample] = [(i, replace(wide, positive=tuple(np.arange(n) * (i + 1) / 3))) for i in range(40)]
    found = oracle.frames(body([samples]))
    assert all(frame.size < MAX_FRAME_BYTES + 100 for frame in found)
    check(samples, [sample for frame in found for sample in frame.samples()])


def test_nothing_selected_is_an_empty_body() -> None:
    assert body([]) == b""


@MANY
@given(st.sampled_from([INTEGERS, CUSTOM, GAUGE]), st.data())
def test_damaged_histograms_are_an_error_or_a_histogram(histogram: NativeHistogram, data: st.DataObject) -> None:
    damaged = bytearray(histogram.encode())
    damaged = damaged[: data.draw(st.integers(1, len(damaged)))]
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(0, 8 * len(damaged) - 1))
        damaged[at // 8] ^= 1 << at % 8
    store = MemoryStore([({"a": "b"}, [(1, histogram.encode()), (2, bytes(damaged))])])
    selection = store.select([], MIN_TIME_MS, MAX_TIME_MS, 10)
    try:
        found = oracle.frames(b"".join(frames(selection, 0)))
    except CorruptError as error:
        assert "is not a histogram" in str(error)  # noqa: PT017
    else:
        assert [time for time, _ in found[0].samples()] == [1, 2]


@MANY
@given(st.binary(max_size=70))
def test_the_checksum_is_that_of_a_slow_loop(data: bytes) -> None:
    assert int(crc32c(np.frombuffer(bytearray(data), dtype=np.uint8))) == oracle.crc32c(data)


def test_the_kernels_are_plain_python_without_the_compiler() -> None:
    command = [sys.executable, "-W", "ignore", "-m", "pytest", "-q", "-W", "ignore", "-p", "no:cacheprovider"]
    command += [__file__, "-k", "not compiler", "--hypothesis-seed=1"]
    done = subprocess.run(
        command, env={**os.environ, "NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout[-3000:]
