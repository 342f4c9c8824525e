"""Query results as Prometheus' JSON, in chunks so that a large answer is never in memory twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import orjson
from numpy.typing import NDArray

from common.histograms import Histograms, take
from common.kernels.jit import for_kernels
from common.kernels.json_result import POINT_BYTES, write_rows
from common.labels import LabelTable
from common.parallel import in_order
from query.engine.engine import QueryResult
from query.engine.native.ops import buckets
from query.engine.values import HistogramCells, RangeVector, Scalar, String, Vector, samples_of

CHUNK_POINTS = 1 << 15
CHUNK_SERIES = 1 << 12
_HEAD = b',{"metric":{'
_ENVELOPE_BYTES = 1000
# Besides its labels and points; and texts of at most 48 bytes for each number of a histogram.
_SERIES_BYTES = 80
_HISTOGRAM_BYTES = 200
_BUCKET_BYTES = 180


def encode_result(
    result: QueryResult, *, extra_warnings: Sequence[str] = (), stats: bytes = b""
) -> Iterator[bytes]:
    """Chunks of the body of an answer to query or query_range. stats: JSON of what it has cost, or nothing."""
    yield b'{"status":"success","data":{"resultType":"%s","result":' % result.kind.encode()
    value = result.value
    if isinstance(value, Scalar):
        yield _point(int(result.steps[0]), float(value.values[0]))
    elif isinstance(value, String):
        yield orjson.dumps([int(result.steps[0]) / 1000, value.value])
    else:
        offsets, times, values, index = samples_of(value, result.steps)
        single = result.kind == "vector"
        yield from _samples(value.labels, offsets, times, values, value.histograms, index, single=single)
    if stats:
        yield b',"stats":' + stats
    yield b"}" + _annotations([*result.warnings, *extra_warnings], result.infos) + b"}"


def upper_bound(result: QueryResult) -> int:
    """Bytes that `encode_result` gives at most, but for warnings."""
    value = result.value
    if not isinstance(value, RangeVector | Vector):
        return _ENVELOPE_BYTES if isinstance(value, Scalar) else _ENVELOPE_BYTES + 6 * len(value.value)
    if isinstance(value, RangeVector):
        n_points = int(value.offsets[-1])
    else:
        n_points = int(np.count_nonzero(value.present))
    size = POINT_BYTES * n_points + labels_bytes(value.labels) + _SERIES_BYTES * len(value.labels)
    if value.histograms is not None:
        index = value.histograms.index
        # The zero bucket is one more.
        n_buckets = np.diff(value.histograms.rows.bucket_offsets)[index[index >= 0]] + 1
        size += _HISTOGRAM_BYTES * len(n_buckets) + _BUCKET_BYTES * int(n_buckets.sum())
    return size + _ENVELOPE_BYTES


def labels_bytes(labels: LabelTable) -> int:
    """Bytes of the label sets of all series as JSON, without their braces, at most."""
    size = 0
    for name, codes in zip(labels.names, labels.codes, strict=True):
        distinct, counts = np.unique(codes[codes != 0], return_counts=True)
        lengths = [len(orjson.dumps(labels.pool[code])) for code in distinct.tolist()]
        size += int(counts.sum()) * (len(orjson.dumps(name)) + 2) + int(np.dot(counts, lengths))
    return size


def encode_series(labels: LabelTable, n_series: int, warnings: Sequence[str] = ()) -> Iterator[bytes]:
    """Chunks of the body of an answer that is the first label sets of a table."""
    yield b'{"status":"success","data":['
    for first in range(0, n_series, CHUNK_SERIES):
        sets = _metrics(labels, first, min(first + CHUNK_SERIES, n_series))
        yield (b"," if first else b"") + b"{" + b"},{".join(sets) + b"}"
    yield b"]" + _annotations(warnings, ()) + b"}"


def sample_text(value: float) -> str:
    """A sample's value as Prometheus writes it."""
    return _numbers(np.array([value]))[0].decode()


def point_texts(times_ms: NDArray[np.int64], values: NDArray[np.float64]) -> list[list[str]]:
    """Time in seconds and value of each sample, as Prometheus writes them."""
    text, ends = _points(np.arange(len(values) + 1, dtype=np.int64), times_ms, values)
    bounds = [0, *ends.tolist()]
    points = text.decode()
    return [points[start + 1 : end - 2].split(',"') for start, end in pairwise(bounds)]


def encode_data(data: object, warnings: Sequence[str] = ()) -> bytes:
    """The body of any other successful answer."""
    return b'{"status":"success","data":' + orjson.dumps(data) + _annotations(warnings, ()) + b"}"


def _annotations(warnings: Sequence[str], infos: Sequence[str]) -> bytes:
    text = b""
    if warnings:
        text += b',"warnings":' + orjson.dumps(list(warnings))
    if infos:
        text += b',"infos":' + orjson.dumps(list(infos))
    return text


def _samples(
    labels: LabelTable,
    offsets: NDArray[np.int64],
    timestamps: NDArray[np.int64],
    values: NDArray[np.float64],
    histograms: HistogramCells | None,
    index: NDArray[np.int32] | None,
    *,
    single: bool,
) -> Iterator[bytes]:
    if histograms is None or index is None:
        yield from _series(labels, offsets, timestamps, values, single=single)
    else:
        yield from with_histograms(labels, offsets, timestamps, values, histograms.rows, index, single=single)


def _series(
    labels: LabelTable,
    offsets: NDArray[np.int64],
    timestamps: NDArray[np.int64],
    values: NDArray[np.float64],
    *,
    single: bool,
) -> Iterator[bytes]:
    opening, closing = (b'},"value":', b"}") if single else (b'},"values":[', b"]}")

    def encode(first: int, last: int) -> bytes:
        metrics = _metrics(labels, first, last)
        heads = bytearray(_HEAD + (opening + _HEAD).join(metrics) + opening)
        sizes = np.fromiter(map(len, metrics), np.int64, last - first) + (len(_HEAD) + len(opening))
        if first == 0:
            # No comma before the first.
            del heads[0]
            sizes[0] -= 1
        return _rows(offsets[first : last + 1], timestamps, values, heads, np.cumsum(sizes), closing)[0]

    yield b"["
    yield from in_order(partial(encode, first, last) for first, last in _chunks(offsets))
    yield b"]"


def _chunks(offsets: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Rows [first, last) of each chunk of about CHUNK_POINTS."""
    row, n_rows = 0, offsets.size - 1
    while row < n_rows:
        last = int(np.searchsorted(offsets, offsets[row] + CHUNK_POINTS, side="right")) - 1
        last = min(max(last, row + 1), n_rows)
        yield row, last
        row = last


def _metrics(labels: LabelTable, first: int, last: int) -> list[bytes]:
    """The label sets of the rows [first, last), inside of the braces; each text is encoded once."""
    columns: list[list[bytes]] = []
    for name, codes in zip(labels.names, labels.codes[:, first:last], strict=True):
        key, of_rows = orjson.dumps(name) + b":", codes.tolist()
        texts = {code: key + orjson.dumps(labels.pool[code]) + b"," if code else b"" for code in set(of_rows)}
        columns.append([texts[code] for code in of_rows])
    if not columns:
        return [b""] * (last - first)
    return [b"".join(pieces)[:-1] for pieces in zip(*columns, strict=True)]


def _points(
    offsets: NDArray[np.int64], timestamps: NDArray[np.int64], values: NDArray[np.float64]
) -> tuple[bytes, NDArray[np.int64]]:
    return _rows(offsets, timestamps, values, bytearray(), np.zeros(offsets.size - 1, dtype=np.int64), b"")


def _rows(
    offsets: NDArray[np.int64],
    timestamps: NDArray[np.int64],
    values: NDArray[np.float64],
    heads: bytearray,
    head_ends: NDArray[np.int64],
    tail: bytes,
) -> tuple[bytes, NDArray[np.int64]]:
    """The points of each row behind its head and before the tail; where each row ends."""
    first, last = int(offsets[0]), int(offsets[-1])
    part = for_kernels(values[first:last])
    times = for_kernels(timestamps[first:last])
    ends = np.empty(offsets.size - 1, dtype=np.int64)
    out = np.empty(part.size * POINT_BYTES + len(heads) + ends.size * len(tail), dtype=np.uint8)
    texts = np.frombuffer(heads, dtype=np.uint8), head_ends, np.frombuffer(bytearray(tail), dtype=np.uint8)
    length = write_rows(*texts, offsets - first, times, part, part.view(np.uint64), out, ends)
    return out[:length].tobytes(), ends


def _point(time_ms: int, value: float) -> bytes:
    text, _ = _points(np.array([0, 1], dtype=np.int64), np.array([time_ms], dtype=np.int64), np.array([value]))
    return text


def with_histograms(
    labels: LabelTable,
    offsets: NDArray[np.int64],
    timestamps: NDArray[np.int64],
    values: NDArray[np.float64],
    rows: Histograms,
    index: NDArray[np.int32],
    *,
    single: bool,
) -> Iterator[bytes]:
    """The series of a result in which some samples are histograms: those with an index of 0 or more."""
    floats, key = (b'"value":', b'"histogram":') if single else (b'"values":[', b'"histograms":[')
    close = b"" if single else b"]"
    yield b"["
    for row in range(len(labels)):
        part = slice(int(offsets[row]), int(offsets[row + 1]))
        held = index[part] >= 0
        fields = [b'"metric":{' + _metrics(labels, row, row + 1)[0] + b"}"]
        if not held.all():
            n = int(np.count_nonzero(~held))
            text, _ = _points(np.array([0, n], dtype=np.int64), timestamps[part][~held], values[part][~held])
            fields.append(floats + text + close)
        if held.any():
            texts = histogram_texts(take(rows, index[part][held].astype(np.int64)))
            seconds = [orjson.dumps(_seconds(time)) for time in timestamps[part][held].tolist()]
            points = [b"[" + time + b"," + text + b"]" for time, text in zip(seconds, texts, strict=True)]
            fields.append(key + b",".join(points) + close)
        yield (b"," if row else b"") + b"{" + b",".join(fields) + b"}"
    yield b"]"


def _seconds(time_ms: int) -> int | float:
    return time_ms // 1000 if time_ms % 1000 == 0 else time_ms / 1000


def histogram_texts(rows: Histograms) -> list[bytes]:
    """Each histogram as Prometheus' API has it."""
    offsets, rules, lower, upper, counts = buckets(rows)
    numbers = _numbers(np.concatenate((rows.counts, rows.sums, lower, upper, counts)))
    n, m = len(rows), len(lower)
    bounds = offsets.tolist()
    out = []
    for i in range(n):
        text = b'{"count":"' + numbers[i] + b'","sum":"' + numbers[n + i] + b'"'
        parts = [
            b'[%d,"%b","%b","%b"]' % (rules[at], *(numbers[2 * n + at + k * m] for k in range(3)))
            for at in range(bounds[i], bounds[i + 1])
        ]
        out.append(text + (b',"buckets":[' + b",".join(parts) + b"]}" if parts else b"}"))
    return out


def _numbers(values: NDArray[np.float64]) -> list[bytes]:
    """Each number as text."""
    offsets = np.arange(len(values) + 1, dtype=np.int64)
    text, ends = _points(offsets, np.zeros(len(values), dtype=np.int64), values)
    starts = np.concatenate((np.zeros(1, dtype=np.int64), ends[:-1])).tolist()
    return [text[start:end][4:-2] for start, end in zip(starts, ends.tolist(), strict=True)]
