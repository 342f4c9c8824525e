"""Operations on the labels of many series: choosing columns, joining tables, numbering equal rows, order."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from common.kernels.match import number_columns
from common.labels import METRIC_NAME, LabelTable, StringPool

METADATA_LABELS = (METRIC_NAME, "__type__", "__unit__")
"""What goes away with the metric name."""

Rows = NDArray[np.int64]


def empty_table(pool: StringPool, n_series: int = 0) -> LabelTable:
    """Series without labels."""
    return LabelTable(pool, (), np.zeros((0, n_series), dtype=np.int32))


def adopt(table: LabelTable, pool: StringPool) -> LabelTable:
    """The same labels with codes of another pool."""
    if table.pool is pool:
        return table
    distinct, inverse = np.unique(table.codes, return_inverse=True)
    codes = np.array([pool.intern(table.pool[code]) for code in distinct.tolist()], dtype=np.int32)
    renamed = codes[inverse.reshape(table.codes.shape)] if codes.size else np.zeros_like(table.codes)
    return LabelTable(pool, table.names, np.ascontiguousarray(renamed))


def keep(table: LabelTable, names: Collection[str]) -> LabelTable:
    """Only these labels."""
    return _columns(table, [i for i, name in enumerate(table.names) if name in names])


def drop(table: LabelTable, names: Collection[str]) -> LabelTable:
    """All but these labels."""
    return _columns(table, [i for i, name in enumerate(table.names) if name not in names])


def _columns(table: LabelTable, columns: list[int]) -> LabelTable:
    if len(columns) == len(table.names):
        return table
    return LabelTable(table.pool, tuple(table.names[i] for i in columns), table.codes[columns])


def set_label(table: LabelTable, name: str, codes: NDArray[np.int32]) -> LabelTable:
    """One label replaced or added; codes: int32 (n_series,) of the table's pool, 0 for no label."""
    rest = drop(table, (name,))
    at = sum(other < name for other in rest.names)
    names = (*rest.names[:at], name, *rest.names[at:])
    return LabelTable(table.pool, names, np.insert(rest.codes, at, codes, axis=0))


def blank(table: LabelTable, names: Collection[str], rows: NDArray[np.bool_]) -> LabelTable:
    """The table without these labels in the rows of the mask."""
    if not rows.any():
        return table
    if rows.all():
        return drop(table, names)
    codes = table.codes.copy()
    for i, name in enumerate(table.names):
        if name in names:
            codes[i, rows] = 0
    return LabelTable(table.pool, table.names, codes)


def stack(tables: Sequence[LabelTable]) -> LabelTable:
    """The series of several tables of one pool, one after another."""
    names = tuple(sorted({name for table in tables for name in table.names}))
    codes = np.zeros((len(names), sum(len(table) for table in tables)), dtype=np.int32)
    row = {name: i for i, name in enumerate(names)}
    at = 0
    for table in tables:
        for name, column in zip(table.names, table.codes, strict=True):
            codes[row[name], at : at + len(table)] = column
        at += len(table)
    return LabelTable(tables[0].pool, names, codes)


def number(table: LabelTable) -> tuple[Rows, Rows]:
    """Equal label sets get equal numbers.

    Returns the number of each series, int64 (n_series,), counted from 0 by first appearance; and the first series
    of each number, int64 (n_numbers,).
    """
    n = len(table)
    ids = np.zeros(n, dtype=np.int64)
    if n <= 1 or not table.names:
        return ids, np.zeros(min(n, 1), dtype=np.int64)
    scratch = np.full(1 << (2 * n + 1).bit_length(), -1, dtype=np.int64)
    firsts = np.empty(n, dtype=np.int64)
    count = number_columns(np.ascontiguousarray(table.codes), scratch, ids, firsts)
    return ids, firsts[:count]


def order(table: LabelTable) -> Rows:
    """Series in the order of their labels, as Prometheus sorts a matrix: int64 (n_series,).

    Label sets compare like lists of (name, value), so an absent label counts as higher than any value if other
    labels follow, for then the next name is higher; and as lower than any if none does.
    """
    n = len(table)
    if n <= 1 or not table.names:
        return np.arange(n, dtype=np.int64)
    distinct, inverse = np.unique(table.codes, return_inverse=True)
    texts = [table.pool[code] for code in distinct.tolist()]
    ranks = np.empty(len(texts), dtype=np.int64)
    ranks[sorted(range(len(texts)), key=texts.__getitem__)] = np.arange(1, len(texts) + 1)
    keys = ranks[inverse.reshape(table.codes.shape)]
    follows = np.zeros(n, dtype=np.bool_)
    for i in range(len(table.names) - 1, -1, -1):
        absent = table.codes[i] == 0
        keys[i, absent] = np.where(follows[absent], len(texts) + 1, 0)
        follows |= ~absent
    return np.lexsort(keys[::-1])
