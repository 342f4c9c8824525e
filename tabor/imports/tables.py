"""Parquet and Arrow files: those of `tabor export`, and any table of timestamps, values and labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
from numpy.typing import NDArray

from common.errors import CallerError, CorruptError
from common.histograms import EncodedHistograms, decode
from common.labels import METRIC_NAME, LabelTable
from common.store import Selection
from query.arrow_stream import HISTOGRAM, TIMESTAMP, VALUE
from query.engine.labeling import number, set_label
from tabor.imports.sending import Sender
from tabor.progress import Bar
from tabor.remote import TooMuch
from tabor.tables import label_columns, label_table

PIECE_ROWS = 20_000
_PIECE_BYTES = 8 << 20
_OWN = (TIMESTAMP, VALUE, HISTOGRAM)


def import_table(path: Path, form: str, metric: str | None, sender: Sender) -> None:
    """Send the samples of a file, 'parquet' or 'arrow'; metric: the name of those that have none.

    Raises:
        CallerError: the file is not such a table; says which column or row. What was sent before is stored.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            with Bar(path.name, total=size) as bar:
                row = 0
                for batch in _batches(file, form):
                    for piece in _pieces(batch):
                        _send(path, piece, row, metric, sender)
                        row += piece.num_rows
                        bar.update(min(file.tell(), size), note=f"{row:,} rows")
    except (pa.ArrowException, OSError) as error:
        raise CallerError(f"{path} cannot be read as {form}: {error}") from None


def _batches(file: Any, form: str) -> Iterator[Any]:
    if form == "parquet":
        yield from pa.parquet.ParquetFile(file).iter_batches(batch_size=PIECE_ROWS)
        return
    magic = file.read(6)
    file.seek(0)
    if magic == b"ARROW1":
        reader = pa.ipc.open_file(file)
        for i in range(reader.num_record_batches):
            yield reader.get_batch(i)
    else:
        yield from pa.ipc.open_stream(file)


def _pieces(batch: Any) -> Iterator[Any]:
    """The rows in parts that are neither long nor, with histograms, large."""
    if batch.num_rows > PIECE_ROWS or (batch.num_rows > 1 and batch.nbytes > _PIECE_BYTES):
        half = batch.num_rows // 2
        yield from _pieces(batch.slice(0, half))
        yield from _pieces(batch.slice(half))
    elif batch.num_rows:
        yield batch


def _send(path: Path, batch: Any, row: int, metric: str | None, sender: Sender) -> None:
    """row: how many rows of the file are before these."""
    where = f"{path}: rows {row + 1} to {row + batch.num_rows}"
    try:
        sender.send_selection(selection_of(batch, metric, str(path), row), where)
    except TooMuch as error:
        if batch.num_rows < 2:
            raise CallerError(f"{path}: row {row + 1}: {error}") from None
        half = batch.num_rows // 2
        _send(path, batch.slice(0, half), row, metric, sender)
        _send(path, batch.slice(half), row + half, metric, sender)


def selection_of(batch: Any, metric: str | None, name: str, row: int) -> Selection:
    """The rows of a record batch, by series; name, row: of its file, and the rows before, for messages.

    Raises:
        CallerError: a column or a row is not as it should be.
    """
    schema = batch.schema
    for column in (TIMESTAMP, VALUE):
        if column not in schema.names:
            raise CallerError(f"{name} has no column {column!r}; there are {', '.join(schema.names)}")
    times = _times(batch.column(TIMESTAMP), name, row)
    native = _histograms(batch, name)
    held = np.zeros(batch.num_rows, dtype=np.bool_) if native is None else _valid(native)
    floats = _floats(batch.column(VALUE), held, name, row)
    labels = label_table(batch, _labels(schema, name))
    if metric is not None and METRIC_NAME not in labels.names:
        code = labels.pool.intern(metric)
        labels = set_label(labels, METRIC_NAME, np.full(batch.num_rows, code, dtype=np.int32))
    nameless = np.flatnonzero(labels.column(METRIC_NAME) == 0)
    if len(nameless):
        raise CallerError(f"{name}: row {row + int(nameless[0]) + 1} has no {METRIC_NAME}; give one with --metric")
    return _by_series(labels, times, floats, native, held, f"{name}: row", row)


def _labels(schema: Any, name: str) -> Mapping[str, int]:
    said = label_columns(schema)
    columns = dict(said)
    for i, field in enumerate(schema):
        if field.name in _OWN or i in said.values():
            continue
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
            raise CallerError(
                f"{name}: column {field.name!r} is of type {field.type}; labels are texts, beside the columns "
                f"{TIMESTAMP!r} and {VALUE!r}"
            )
        if not pa.types.is_null(kind):
            columns[field.name] = i
    return columns


def _times(array: Any, name: str, row: int) -> NDArray[np.int64]:
    if not (pa.types.is_timestamp(array.type) or pa.types.is_integer(array.type)):
        raise CallerError(
            f"{name}: column {TIMESTAMP!r} is of type {array.type}; timestamps, or integers as ms, are expected"
        )
    if array.null_count:
        raise CallerError(f"{name}: row {row + int(np.flatnonzero(~_valid(array))[0]) + 1} has no {TIMESTAMP}")
    if pa.types.is_timestamp(array.type):
        array = array.cast(pa.timestamp("ms", tz=array.type.tz), safe=False)
    times: NDArray[np.int64] = array.cast(pa.int64()).to_numpy(zero_copy_only=False)
    return times


def _floats(array: Any, held: NDArray[np.bool_], name: str, row: int) -> NDArray[np.float64]:
    if not (pa.types.is_floating(array.type) or pa.types.is_integer(array.type)):
        raise CallerError(f"{name}: column {VALUE!r} is of type {array.type}; numbers are expected")
    missing = np.flatnonzero(~_valid(array) & ~held)
    if len(missing):
        raise CallerError(f"{name}: row {row + int(missing[0]) + 1} has no {VALUE}")
    # A null has bits of its own, which are nobody's business; filling them leaves those of all NaNs as they are.
    filled: NDArray[np.float64] = array.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False)
    return filled


def _histograms(batch: Any, name: str) -> Any:
    """The column of histograms, or None if there are none."""
    if HISTOGRAM not in batch.schema.names:
        return None
    array = batch.column(HISTOGRAM)
    if array.null_count == len(array):
        return None
    if not (pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type)):
        raise CallerError(
            f"{name}: column {HISTOGRAM!r} is of type {array.type}; bytes are expected, as tabor export has them"
        )
    return array.cast(pa.large_binary())


def _valid(array: Any) -> NDArray[np.bool_]:
    valid: NDArray[np.bool_] = array.is_valid().to_numpy(zero_copy_only=False)
    return valid


def _by_series(
    labels: LabelTable,
    times: NDArray[np.int64],
    floats: NDArray[np.float64],
    native: Any,
    held: NDArray[np.bool_],
    what: str,
    row: int,
) -> Selection:
    ids, firsts = number(labels)
    order = np.argsort(ids, kind="stable")
    offsets = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(np.bincount(ids), dtype=np.int64)))
    histograms = None
    if native is not None:
        positions = np.flatnonzero(held[order])
        histograms = _encoded(native.take(pa.array(order[positions])), positions)
        try:
            decode(histograms)
        except CorruptError:
            at = row + int(order[positions[_first_bad(histograms)]]) + 1
            raise CallerError(f"{what} {at}: the bytes are not those of a histogram") from None
    return Selection(labels.take(firsts), offsets, times[order], floats[order], histograms)


def _encoded(array: Any, positions: NDArray[np.int64]) -> EncodedHistograms:
    _, offsets, data = array.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int64, count=len(array) + 1)
    return EncodedHistograms(positions, bounds, np.frombuffer(data or b"", dtype=np.uint8)[: bounds[-1]])


def _first_bad(histograms: EncodedHistograms) -> int:
    for i in range(len(histograms)):
        start, end = histograms.offsets[i : i + 2]
        one = EncodedHistograms(np.zeros(1, np.int64), np.array([0, end - start]), histograms.data[start:end])
        try:
            decode(one)
        except CorruptError:
            return i
    raise AssertionError("each of them is a histogram")
