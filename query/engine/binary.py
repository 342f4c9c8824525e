"""Binary operators: arithmetic and comparisons between scalars and vectors, and the set operators."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from common.kernels.match import (
    ADD,
    ATAN2,
    BOOL,
    DIV,
    EQ,
    FILTER_LEFT,
    FILTER_RIGHT,
    GE,
    GT,
    LE,
    LT,
    MOD,
    MUL,
    NE,
    POW,
    SUB,
    combine_rows,
)
from common.labels import StringPool
from query.engine.budget import Budget
from query.engine.cells import HistogramPool
from query.engine.histogram_binary import TRIMS, Side, combine_histograms
from query.engine.labeling import Rows, empty_table, stack
from query.engine.matching import any_in_group, check_matches, pair_up, result_labels, signatures
from query.engine.merging import merge_rows
from query.engine.values import Annotations, Scalar, Value, Vector
from query.promql.ast import Binary, Cardinality

_OPERATORS = {
    "+": ADD,
    "-": SUB,
    "*": MUL,
    "/": DIV,
    "%": MOD,
    "^": POW,
    "atan2": ATAN2,
    "==": EQ,
    "!=": NE,
    ">": GT,
    "<": LT,
    ">=": GE,
    "<=": LE,
}
_COMPARISONS = ("==", "!=", ">", "<", ">=", "<=")


@dataclass(frozen=True, slots=True, eq=False)
class _Query:
    """What an operator needs of the query besides its sides."""

    histograms: HistogramPool
    annotations: Annotations
    budget: Budget


def binary(
    node: Binary, lhs: Value, rhs: Value, histograms: HistogramPool, annotations: Annotations, budget: Budget
) -> Value:
    """Evaluate a binary operator on the values of its sides.

    Raises:
        EvalError: the series do not match as the operator asks for.
    """
    query = _Query(histograms, annotations, budget)
    if isinstance(lhs, Scalar) and isinstance(rhs, Scalar):
        return _scalars(node, lhs, rhs, budget)
    if isinstance(lhs, Vector) and isinstance(rhs, Scalar):
        return _with_scalar(node, lhs, rhs, query, scalar_left=False)
    if isinstance(lhs, Scalar) and isinstance(rhs, Vector):
        return _with_scalar(node, rhs, lhs, query, scalar_left=True)
    assert isinstance(lhs, Vector)
    assert isinstance(rhs, Vector)
    if node.op in ("and", "or", "unless"):
        return _set_operation(node, lhs, rhs, budget)
    return _vectors(node, lhs, rhs, query)


def _as_row(scalar: Scalar) -> Vector:
    """A scalar as a vector of one series."""
    values = np.ascontiguousarray(scalar.values).reshape(1, -1)
    present = np.ones(values.shape, dtype=np.bool_)
    return Vector(empty_table(StringPool(), 1), values, present, np.zeros(1, dtype=np.bool_))


def _combine(
    node: Binary, mode: int, left: Vector, left_rows: Rows, right: Vector, right_rows: Rows, query: _Query
) -> tuple[np.ndarray, np.ndarray]:
    left, left_index = query.histograms.without_histograms(left)
    right, right_index = query.histograms.without_histograms(right)
    if node.op in TRIMS:
        shape = len(left_rows), left.values.shape[1]
        values, present = np.zeros(shape), np.zeros(shape, dtype=np.bool_)
    else:
        values, present = _combine_floats(node, mode, left, left_rows, right, right_rows, query.budget)
    sides = Side(left, left_index, left_rows), Side(right, right_index, right_rows)
    combine_histograms(node, *sides, values, present, query.histograms, query.annotations)
    return values, present


def _combine_floats(
    node: Binary, mode: int, left: Vector, left_rows: Rows, right: Vector, right_rows: Rows, budget: Budget
) -> tuple[np.ndarray, np.ndarray]:
    op = _OPERATORS[node.op]
    n_rows, n_steps = len(left_rows), left.values.shape[1]
    budget.reserve(n_rows, n_steps)
    values = np.empty((n_rows, n_steps))
    present = np.empty((n_rows, n_steps), dtype=np.bool_)
    for rows in budget.chunks(n_rows, n_steps):
        combine_rows(
            op,
            mode,
            left.values,
            left.present,
            left_rows[rows],
            right.values,
            right.present,
            right_rows[rows],
            values[rows],
            present[rows],
        )
    return values, present


def _scalars(node: Binary, lhs: Scalar, rhs: Scalar, budget: Budget) -> Scalar:
    row = np.zeros(1, dtype=np.int64)
    values, _ = _combine_floats(node, BOOL, _as_row(lhs), row, _as_row(rhs), row, budget)
    return Scalar(values[0])


def _with_scalar(node: Binary, vector: Vector, scalar: Scalar, query: _Query, *, scalar_left: bool) -> Vector:
    rows = np.arange(len(vector.labels), dtype=np.int64)
    same = np.zeros_like(rows)
    row = _as_row(scalar)
    if scalar_left:
        # A filter keeps the vector's value, whichever side it stands on.
        mode = BOOL if node.return_bool else FILTER_RIGHT
        values, present = _combine(node, mode, row, same, vector, rows, query)
    else:
        mode = BOOL if node.return_bool else FILTER_LEFT
        values, present = _combine(node, mode, vector, rows, row, same, query)
    unnamed = node.op not in _COMPARISONS or node.return_bool
    drop_name = np.ones_like(vector.drop_name) if unnamed else vector.drop_name
    return Vector(vector.labels, values, present, drop_name)


def _vectors(node: Binary, lhs: Vector, rhs: Vector, query: _Query) -> Vector:
    assert node.matching is not None
    unnamed = node.op not in _COMPARISONS
    swapped = node.matching.cardinality is Cardinality.ONE_TO_MANY
    pairs = pair_up(node.matching, *((rhs, lhs) if swapped else (lhs, rhs)))
    sides = (pairs.many, pairs.many_rows), (pairs.one, pairs.one_rows)
    (left, left_rows), (right, right_rows) = reversed(sides) if swapped else sides
    mode = BOOL if node.return_bool else FILTER_LEFT
    values, present = _combine(node, mode, left, left_rows, right, right_rows, query)
    labels = result_labels(node.matching, pairs, unnamed=unnamed)
    check_matches(node.matching, pairs, labels)
    drop_name = pairs.many.drop_name[pairs.many_rows] | node.return_bool
    if unnamed:
        drop_name = np.zeros_like(drop_name)
    return merge_rows(Vector(labels, values, present, drop_name))


def _set_operation(node: Binary, lhs: Vector, rhs: Vector, budget: Budget) -> Vector:
    assert node.matching is not None
    left_ids, right_ids, table = signatures(node.matching, lhs.labels, rhs.labels)
    if node.op == "or":
        taken = any_in_group(lhs.present, left_ids, len(table))
        present = rhs.present & ~taken[right_ids]
        rows = np.flatnonzero(present.any(axis=1))
        budget.reserve(len(left_ids) + len(rows), lhs.values.shape[1])
        return merge_rows(
            Vector(
                stack((lhs.labels, rhs.labels.take(rows))),
                np.concatenate((lhs.values, rhs.values[rows])),
                np.concatenate((lhs.present, present[rows])),
                np.concatenate((lhs.drop_name, rhs.drop_name[rows])),
            )
        )
    other = any_in_group(rhs.present, right_ids, len(table))[left_ids]
    present = lhs.present & (other if node.op == "and" else ~other)
    return Vector(lhs.labels, lhs.values, present, lhs.drop_name)
