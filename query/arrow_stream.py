"""Samples as an Arrow IPC stream: one row a sample, with a dictionary-encoded column for each label.

Import this where it is needed only: pyarrow takes a good part of a second, and few servers are asked for it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray

from common.histograms import EncodedHistograms, Histograms, take
from common.labels import LabelTable
from query.engine.engine import QueryResult
from query.engine.native.ops import buckets
from query.engine.values import HistogramCells, RangeVector, Scalar, String, Vector, samples_of

BATCH_ROWS = 1 << 16
"""Rows of one record batch, at most."""
LABEL = b"label"
"""Key of a field's metadata: the name of the label that the column has."""
TIMESTAMP, VALUE, HISTOGRAM = "timestamp", "value", "histogram"
TIME_TYPE = pa.timestamp("ms", tz="UTC")
LABEL_TYPE = pa.dictionary(pa.int32(), pa.utf8())
_BUCKET = pa.struct(
    [("boundary_rule", pa.uint8()), ("lower", pa.float64()), ("upper", pa.float64()), ("count", pa.float64())]
)
_HISTOGRAM = pa.struct([("count", pa.float64()), ("sum", pa.float64()), ("buckets", pa.list_(_BUCKET))])


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """A column that is no label; part(first, last) gives its rows [first, last) as an Arrow array."""

    name: str
    type: Any
    part: Callable[[int, int], Any]


def label_fields(names: Sequence[str]) -> list[Any]:
    """A field for each label, in order; one whose name is that of another column is called `label_…`."""
    fields = []
    for name in names:
        column = name
        while column in (TIMESTAMP, VALUE, HISTOGRAM) or (column != name and column in names):
            column = f"label_{column}"
        fields.append(pa.field(column, LABEL_TYPE, metadata={LABEL: name.encode()}))
    return fields


def encode_result(result: QueryResult, *, extra_warnings: Sequence[str] = ()) -> Iterator[bytes]:
    """Chunks of the stream of an answer to query or query_range.

    The schema's metadata has the type of the result, and warnings and infos, if any, as JSON lists.
    """
    value = result.value
    metadata: dict[str, bytes] = {"resultType": result.kind.encode()}
    for name, texts in (("warnings", [*result.warnings, *extra_warnings]), ("infos", result.infos)):
        if texts:
            metadata[name] = orjson.dumps(texts)
    if isinstance(value, RangeVector | Vector):
        offsets, times, values, index = samples_of(value, result.steps)
        return _samples(value.labels, offsets, times, values, value.histograms, index, metadata)
    no_labels = LabelTable.of([{}])
    time = Column(TIMESTAMP, TIME_TYPE, lambda _, __: pa.array(result.steps[:1], type=TIME_TYPE))
    if isinstance(value, Scalar):
        one = Column(VALUE, pa.float64(), lambda _, __: pa.array(value.values[:1]))
    else:
        assert isinstance(value, String)
        one = Column(VALUE, pa.utf8(), lambda _, __: pa.array([value.value]))
    return encode(no_labels, np.array([0, 1], dtype=np.int64), [time, one], metadata)


def encode_raw(
    labels: LabelTable,
    offsets: NDArray[np.int64],
    timestamps: NDArray[np.int64],
    values: NDArray[np.float64],
    histograms: EncodedHistograms | None,
    numbers: NDArray[np.int64] | None,
) -> Iterator[bytes]:
    """Chunks of the stream of samples as they are stored; a histogram is its bytes (`docs/format/histogram.md`).

    labels, offsets, timestamps, values: as in `common.store.Selection`. numbers: int64 (n_samples,), which of the
    histograms each sample is, -1 for floats; None if all are floats.
    """
    rows: Any = None
    if histograms is not None:
        bounds, data = np.ascontiguousarray(histograms.offsets), np.ascontiguousarray(histograms.data)
        buffers = [None, pa.py_buffer(bounds), pa.py_buffer(data)]
        rows = pa.Array.from_buffers(pa.large_binary(), len(histograms), buffers)

    def encoded(first: int, last: int) -> Any:
        if numbers is None:
            return pa.nulls(last - first, pa.binary())
        chosen = numbers[first:last]
        return rows.take(pa.array(chosen, mask=chosen < 0)).cast(pa.binary())

    columns = [_times(timestamps), _values(values, numbers), Column(HISTOGRAM, pa.binary(), encoded)]
    return encode(labels, offsets, columns, {})


def encode(
    labels: LabelTable, offsets: NDArray[np.int64], columns: Sequence[Column], metadata: Mapping[str, bytes]
) -> Iterator[bytes]:
    """Chunks of a stream whose rows [offsets[i], offsets[i + 1]) have the labels of series i."""
    present = [i for i in range(len(labels.names)) if labels.codes[i].any()]
    names = [labels.names[i] for i in present]
    coded = [_coded(labels, i) for i in present]
    fields = [pa.field(column.name, column.type) for column in columns]
    schema = pa.schema(fields + label_fields(names), metadata=dict(metadata))
    buffer = io.BytesIO()
    n_rows = int(offsets[-1])
    with pa.ipc.new_stream(buffer, schema) as stream:
        for first in range(0, n_rows, BATCH_ROWS):
            last = min(first + BATCH_ROWS, n_rows)
            series = _series_of(offsets, first, last)
            arrays = [column.part(first, last) for column in columns]
            for codes, texts in coded:
                chosen = codes[series]
                arrays.append(pa.DictionaryArray.from_arrays(pa.array(chosen, mask=chosen < 0), texts))
            stream.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
            yield _drained(buffer)
    yield _drained(buffer)


def _coded(labels: LabelTable, row: int) -> tuple[NDArray[np.int32], Any]:
    """The number of each series' value of one label among its distinct values, -1 for none; and these values."""
    distinct, which = np.unique(labels.codes[row], return_inverse=True)
    numbers = np.cumsum(distinct != 0, dtype=np.int32) - np.int32(1)
    numbers[distinct == 0] = -1
    return numbers[which], pa.array([labels.pool[code] for code in distinct.tolist() if code], type=pa.utf8())


def _series_of(offsets: NDArray[np.int64], first: int, last: int) -> NDArray[np.int64]:
    """The series of each of the rows [first, last)."""
    low = int(np.searchsorted(offsets, first, side="right")) - 1
    high = int(np.searchsorted(offsets, last, side="left"))
    edges = np.clip(offsets[low : high + 1], first, last)
    counts = edges[1:] - edges[:-1]
    return np.repeat(np.arange(low, high), counts)


def _drained(buffer: io.BytesIO) -> bytes:
    chunk = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return chunk


def _times(timestamps: NDArray[np.int64]) -> Column:
    return Column(TIMESTAMP, TIME_TYPE, lambda first, last: pa.array(timestamps[first:last], type=TIME_TYPE))


def _values(values: NDArray[np.float64], held: NDArray[np.integer[Any]] | None) -> Column:
    """The floats; null where there is a histogram."""

    def part(first: int, last: int) -> Any:
        return pa.array(values[first:last], mask=None if held is None else held[first:last] >= 0)

    return Column(VALUE, pa.float64(), part)


def _samples(
    labels: LabelTable,
    offsets: NDArray[np.int64],
    timestamps: NDArray[np.int64],
    values: NDArray[np.float64],
    histograms: HistogramCells | None,
    index: NDArray[np.int32] | None,
    metadata: Mapping[str, bytes],
) -> Iterator[bytes]:
    columns = [_times(timestamps), _values(values, index)]
    if histograms is not None and index is not None:
        rows, held = histograms.rows, index

        def decoded(first: int, last: int) -> Any:
            return _structs(rows, held[first:last])

        columns.append(Column(HISTOGRAM, _HISTOGRAM, decoded))
    return encode(labels, offsets, columns, metadata)


def _structs(rows: Histograms, index: NDArray[np.int32]) -> Any:
    """A histogram as Prometheus' API has it, but of numbers, for each row with an index of 0 or more."""
    held = index >= 0
    chosen = take(rows, index[held].astype(np.int64))
    offsets, *bounds = buckets(chosen)
    one = pa.StructArray.from_arrays([pa.array(column) for column in bounds], fields=list(_BUCKET))
    lists = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), one)
    columns = [pa.array(chosen.counts), pa.array(chosen.sums), lists]
    structs = pa.StructArray.from_arrays(columns, fields=list(_HISTOGRAM))
    places = np.cumsum(held, dtype=np.int64) - 1
    return structs.take(pa.array(places, mask=~held))
