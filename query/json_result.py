"""Query results as Prometheus' JSON, in chunks so that a large answer is never in memory twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import orjson
from numpy.typing import NDArray

from common.kernels.json_result import POINT_BYTES, write_points
from common.labels import LabelTable
from query.engine.engine import QueryResult
from query.engine.values import RangeVector, Scalar, String, Vector

CHUNK_POINTS = 1 << 15


def encode_result(result: QueryResult, *, extra_warnings: Sequence[str] = ()) -> Iterator[bytes]:
    """Chunks of the body of an answer to query or query_range."""
    yield b'{"status":"success","data":{"resultType":"%s","result":' % result.kind.encode()
    value = result.value
    if isinstance(value, Scalar):
        yield _point(int(result.steps[0]), float(value.values[0]))
    elif isinstance(value, String):
        yield orjson.dumps([int(result.steps[0]) / 1000, value.value])
    elif isinstance(value, RangeVector):
        yield from _series(value.labels, value.offsets, value.timestamps, value.values, single=False)
    else:
        yield from _vector(value, result.steps, single=result.kind == "vector")
    yield b"}" + _annotations([*result.warnings, *extra_warnings], result.infos) + b"}"


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


def _vector(value: Vector, steps: NDArray[np.int64], *, single: bool) -> Iterator[bytes]:
    counts = np.count_nonzero(value.present, axis=1)
    offsets = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)))
    timestamps = np.broadcast_to(steps, value.present.shape)[value.present]
    yield from _series(value.labels, offsets, timestamps, value.values[value.present], single=single)


def _series(
    labels: LabelTable,
    offsets: NDArray[np.int64],
    timestamps: NDArray[np.int64],
    values: NDArray[np.float64],
    *,
    single: bool,
) -> Iterator[bytes]:
    opening, closing = (b'},"value":', b"},") if single else (b'},"values":[', b"]},")
    yield b"["
    row, n_rows = 0, len(labels)
    while row < n_rows:
        last = int(np.searchsorted(offsets, offsets[row] + CHUNK_POINTS, side="right")) - 1
        last = min(max(last, row + 1), n_rows)
        text, ends = _points(offsets[row : last + 1], timestamps, values)
        parts: list[bytes] = []
        start = 0
        for metric, end in zip(_metrics(labels, row, last), ends.tolist(), strict=True):
            parts += (b'{"metric":{', metric, opening, text[start:end], closing)
            start = end
        yield (b"," if row else b"") + b"".join(parts)[:-1]
        row = last
    yield b"]"


def _metrics(labels: LabelTable, first: int, last: int) -> list[bytes]:
    """The label sets of the rows [first, last), inside of the braces; each text is encoded once."""
    columns: list[list[bytes]] = []
    for name, codes in zip(labels.names, labels.codes[:, first:last], strict=True):
        distinct, which = np.unique(codes, return_inverse=True)
        key = orjson.dumps(name) + b":"
        texts = [key + orjson.dumps(labels.pool[code]) + b"," if code else b"" for code in distinct.tolist()]
        columns.append([texts[i] for i in which.tolist()])
    if not columns:
        return [b""] * (last - first)
    return [b"".join(pieces)[:-1] for pieces in zip(*columns, strict=True)]


def _points(
    offsets: NDArray[np.int64], timestamps: NDArray[np.int64], values: NDArray[np.float64]
) -> tuple[bytes, NDArray[np.int64]]:
    first, last = int(offsets[0]), int(offsets[-1])
    part = np.ascontiguousarray(values[first:last])
    tokens = np.frombuffer(orjson.dumps(part, option=orjson.OPT_SERIALIZE_NUMPY), dtype=np.uint8).copy()
    out = np.empty(part.size * POINT_BYTES, dtype=np.uint8)
    ends = np.empty(offsets.size - 1, dtype=np.int64)
    times = np.ascontiguousarray(timestamps[first:last])
    length = write_points(offsets - first, times, part, tokens, np.empty(64, dtype=np.uint8), out, ends)
    return out[:length].tobytes(), ends


def _point(time_ms: int, value: float) -> bytes:
    text, _ = _points(np.array([0, 1], dtype=np.int64), np.array([time_ms], dtype=np.int64), np.array([value]))
    return text
