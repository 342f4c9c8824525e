"""Arrow tables of samples, as `tabor export` writes and `tabor import` reads them, to Tabor's columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from common.labels import LabelTable, StringPool
from query.arrow_stream import LABEL


def label_columns(schema: Any) -> dict[str, int]:
    """Label names and their columns, for a schema that says which columns are labels."""
    return {
        field.metadata[LABEL].decode(): i
        for i, field in enumerate(schema)
        if field.metadata is not None and LABEL in field.metadata
    }


def label_table(batch: Any, columns: Mapping[str, int]) -> LabelTable:
    """The label set of each row of a record batch; columns: of labels by name, texts or dictionaries of texts."""
    pool = StringPool()
    names = tuple(sorted(columns))
    codes = np.zeros((len(names), batch.num_rows), dtype=np.int32)
    for row, name in enumerate(names):
        codes[row] = _codes(batch.column(columns[name]), pool)
    return LabelTable(pool, names, codes)


def _codes(array: Any, pool: StringPool) -> NDArray[np.int32]:
    if not isinstance(array, pa.DictionaryArray):
        array = array.dictionary_encode()
    known = [0 if text is None else pool.intern(text) for text in array.dictionary.to_pylist()]
    places = array.indices.cast(pa.int64()).fill_null(len(known)).to_numpy(zero_copy_only=False)
    # What stands for an absent label comes last.
    codes: NDArray[np.int32] = np.array([*known, 0], dtype=np.int32)[places]
    return codes
