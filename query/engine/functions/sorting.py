"""The order of results: sort, sort_desc, sort_by_label, sort_by_label_desc. It matters to instant queries only."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cmp_to_key, partial

import numpy as np
from numpy.typing import NDArray

from query.engine.functions.registry import Function, string_of, vector_of
from query.engine.values import Context, Value, Vector
from query.promql.ast import Call

_CHUNK = re.compile(r"[0-9]+|[^0-9]+")
_LARGEST_INTEGER = (1 << 63) - 1


def natural_order(a: str, b: str) -> int:
    """-1, 0 or 1: runs of digits are compared as numbers, all else by code point (Go's facette/natsort)."""
    chunks_a, chunks_b = _CHUNK.findall(a), _CHUNK.findall(b)
    for chunk_a, chunk_b in zip(chunks_a, chunks_b, strict=False):
        if "0" <= chunk_a[0] <= "9" and "0" <= chunk_b[0] <= "9":
            number_a, number_b = int(chunk_a), int(chunk_b)
            # What does not fit in an integer is text.
            if number_a <= _LARGEST_INTEGER and number_b <= _LARGEST_INTEGER:
                if number_a != number_b:
                    return -1 if number_a < number_b else 1
                continue
        if chunk_a != chunk_b:
            return -1 if chunk_a < chunk_b else 1
    return (len(chunks_a) > len(chunks_b)) - (len(chunks_a) < len(chunks_b))


def _take(vector: Vector, rows: NDArray[np.intp]) -> Vector:
    cells = vector.histograms
    return Vector(
        vector.labels.take(rows),
        np.ascontiguousarray(vector.values[rows]),
        np.ascontiguousarray(vector.present[rows]),
        vector.drop_name[rows],
        None if cells is None else replace(cells, index=np.ascontiguousarray(cells.index[rows])),
    )


def _warn_if_useless(context: Context, call: Call) -> None:
    if len(context.steps) > 1:
        message = "sort is ineffective for range queries since results are always ordered by labels"
        context.annotations.warn(message, call.span)


def _sort(descending: bool, context: Context, args: tuple[Value, ...], call: Call) -> Value:
    _warn_if_useless(context, call)
    vector = vector_of(args[0])
    if len(context.steps) != 1:
        return vector
    rows = np.flatnonzero(vector.present[:, 0])
    values = vector.values[rows, 0]
    # NaN comes last either way.
    return _take(vector, rows[np.argsort(-values if descending else values, kind="stable")])


def _sort_by_label(descending: bool, context: Context, args: tuple[Value, ...], call: Call) -> Value:
    _warn_if_useless(context, call)
    vector = vector_of(args[0])
    if len(context.steps) != 1:
        return vector
    labels = vector.labels
    rows = np.flatnonzero(vector.present[:, 0])
    keys = [string_of(value) for value in args[1:]]
    texts = [[labels.pool[code] for code in labels.column(key)[rows].tolist()] for key in keys]
    whole = [tuple(labels.labels(row).items()) for row in rows.tolist()]

    def order(a: int, b: int) -> int:
        for column in texts:
            if column[a] != column[b]:
                return natural_order(column[a], column[b])
        return (whole[a] > whole[b]) - (whole[a] < whole[b])

    ordered = sorted(range(len(rows)), key=cmp_to_key(order), reverse=descending)
    return _take(vector, rows[np.array(ordered, dtype=np.intp)])


FUNCTIONS: dict[str, Function] = {
    "sort": partial(_sort, False),
    "sort_desc": partial(_sort, True),
    "sort_by_label": partial(_sort_by_label, False),
    "sort_by_label_desc": partial(_sort_by_label, True),
}
