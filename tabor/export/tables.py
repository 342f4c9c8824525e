"""Parquet and Arrow: one row a sample, every bit as stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from common.errors import RetryableError
from query.arrow_stream import HISTOGRAM, LABEL, LABEL_TYPE, TIME_TYPE, TIMESTAMP, VALUE, label_fields
from tabor.export.files import Counted


class _Sink(Protocol):
    def write_table(self, table: Any) -> None: ...

    def close(self) -> None: ...


class TableWriter:
    """Writes slices of an export, which have a column for each label that they have, as one table."""

    def __init__(self, file: Counted, form: str, labels: Sequence[str]) -> None:
        fields = [(TIMESTAMP, TIME_TYPE), (VALUE, pa.float64()), (HISTOGRAM, pa.binary())]
        self._labels = list(labels)
        self._schema = pa.schema([pa.field(*one) for one in fields] + label_fields(labels))
        self._sink: _Sink
        if form == "arrow":
            self._sink = pa.ipc.new_stream(
                pa.PythonFile(file, mode="w"), self._schema, options=pa.ipc.IpcWriteOptions(compression="zstd")
            )
        else:
            # Values must not be gathered in a dictionary: it takes all NaNs for equal, whatever their bits.
            self._sink = pa.parquet.ParquetWriter(
                pa.PythonFile(file, mode="w"),
                self._schema,
                compression="zstd",
                use_dictionary=[field.name for field in self._schema if field.metadata],
                column_encoding={TIMESTAMP: "DELTA_BINARY_PACKED", VALUE: "BYTE_STREAM_SPLIT"},
            )

    def add(self, table: Any) -> None:
        """Write the rows of a slice.

        Raises:
            RetryableError: it has a label that was not there when the export began.
        """
        found = {field.metadata[LABEL].decode(): i for i, field in enumerate(table.schema) if field.metadata}
        if fresh := sorted(found.keys() - set(self._labels)):
            raise RetryableError(f"the label {fresh[0]} has come up during the export; run it again")
        columns = [table[TIMESTAMP], table[VALUE], table[HISTOGRAM]]
        for label in self._labels:
            columns.append(table.column(found[label]) if label in found else _absent(table.num_rows))
        if table.num_rows:
            self._sink.write_table(pa.Table.from_arrays(columns, schema=self._schema))

    def close(self) -> None:
        """Write what stands at the end of such a file."""
        self._sink.close()


def _absent(n: int) -> Any:
    array = pa.DictionaryArray.from_arrays(pa.nulls(n, pa.int32()), pa.array([], type=pa.utf8()))
    return array.cast(LABEL_TYPE)
