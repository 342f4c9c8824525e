"""Vector matching: which series of the one side go with which of the other.

One side is the 'many' side, whose labels the result has, the other the 'one' side, which may have one sample for
each match group at each step. In one-to-one matching the left side is the 'many' side. What counts is a step, not
a series: a match group may have one series today and another tomorrow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.kernels.match import mark_groups
from common.labels import METRIC_NAME, LabelTable
from query.engine.gofmt import label_set
from query.engine.labeling import METADATA_LABELS, Rows, drop, keep, number, set_label, stack
from query.engine.merging import collapse
from query.engine.values import EvalError, Vector
from query.promql.ast import Cardinality, VectorMatching


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Rows that are matched: many_rows[i] of `many` with one_rows[i] of `one`.

    `one` has a row for each match group and each combination of included labels; of the rows of a match group at
    most one is present at a step. groups: the match group of each pair. n_groups: how many match groups there are.
    """

    many: Vector
    one: Vector
    many_rows: Rows
    one_rows: Rows
    groups: Rows
    n_groups: int


def signatures(matching: VectorMatching, left: LabelTable, right: LabelTable) -> tuple[Rows, Rows, LabelTable]:
    """Match groups of the series of both sides, and the labels that they match on, one row a group."""

    def matched(table: LabelTable) -> LabelTable:
        return keep(table, matching.labels) if matching.on else drop(table, {*matching.labels, METRIC_NAME})

    both = stack((matched(left), matched(right)))
    ids, firsts = number(both)
    return ids[: len(left)], ids[len(left) :], both.take(firsts)


def any_in_group(present: NDArray[np.bool_], group: Rows, n_groups: int) -> NDArray[np.bool_]:
    """bool (n_groups, n_steps): whether any row of the group is present."""
    out = np.zeros((n_groups, present.shape[1]), dtype=np.bool_)
    mark_groups(present, group, out)
    return out


def pair_up(matching: VectorMatching, many: Vector, one: Vector) -> Pairs:
    """Match the series of two vectors.

    Raises:
        EvalError: the 'one' side has two samples in a match group at one step.
    """
    many_ids, ids, table = signatures(matching, many.labels, one.labels)
    fills = matching.fill_left is not None or matching.fill_right is not None
    slots, slot_ids = _slots(matching, many, one, ids, table, fills=fills)
    if fills:
        there = any_in_group(one.present, ids, len(table))
        many_there = any_in_group(many.present, many_ids, len(table))
        if matching.fill_right is not None:
            groups = np.unique(many_ids)
            slots, slot_ids = _with_fill(slots, slot_ids, table, groups, ~there, matching.fill_right)
        if matching.fill_left is not None:
            missing = there & ~many_there
            many, many_ids = _with_fill(many, many_ids, table, np.unique(ids), missing, matching.fill_left)
    by_group = np.argsort(slot_ids, kind="stable")
    counts = np.bincount(slot_ids, minlength=len(table))
    starts = np.cumsum(counts) - counts
    partners = counts[many_ids]
    many_rows = np.repeat(np.arange(len(many_ids)), partners)
    nth = np.arange(len(many_rows)) - np.repeat(np.cumsum(partners) - partners, partners)
    one_rows = by_group[np.repeat(starts[many_ids], partners) + nth]
    return Pairs(many, slots, many_rows, one_rows, many_ids[many_rows], len(table))


def _slots(
    matching: VectorMatching, many: Vector, one: Vector, ids: Rows, table: LabelTable, *, fills: bool
) -> tuple[Vector, Rows]:
    """The 'one' side with a row for each match group and combination of included labels; and their groups."""
    if not (np.bincount(ids, minlength=1) > 1).any():
        return one, ids
    present = one.present
    if not fills:
        # Where the other side has nothing at all, nothing is matched and nothing can be wrong.
        present = present & many.present.any(axis=0)
    *_, conflict = collapse(one.values, present, ids, len(table))
    if conflict is not None:
        raise EvalError(_duplicates(matching, one, present, ids, table, *conflict))
    included = keep(one.labels, matching.include)
    slot, firsts = number(_with_group(included, ids))
    values, present, _ = collapse(one.values, present, slot, len(firsts))
    return Vector(one.labels.take(firsts), values, present, one.drop_name[firsts]), ids[firsts]


def _with_group(table: LabelTable, groups: Rows) -> LabelTable:
    """The columns of a table and the match group as one more, for numbering."""
    codes = np.concatenate((table.codes, groups.astype(np.int32)[None, :]))
    return LabelTable(table.pool, (*table.names, ""), codes)


def _with_fill(
    vector: Vector, ids: Rows, table: LabelTable, groups: Rows, missing: NDArray[np.bool_], value: float
) -> tuple[Vector, Rows]:
    """A row more for each of these match groups: the value at the steps where the group is missing."""
    shape = (len(groups), vector.values.shape[1])
    filled = Vector(
        stack((vector.labels, table.take(groups))),
        np.concatenate((vector.values, np.full(shape, value))),
        np.concatenate((vector.present, missing[groups])),
        np.concatenate((vector.drop_name, np.zeros(len(groups), dtype=np.bool_))),
    )
    return filled, np.concatenate((ids, groups))


def _duplicates(
    matching: VectorMatching,
    one: Vector,
    present: NDArray[np.bool_],
    ids: Rows,
    table: LabelTable,
    step: int,
    group: int,
) -> str:
    rows = np.flatnonzero((ids == group) & present[:, step])[:2]
    first, second = sorted(label_set(one.labels.labels(int(row))) for row in rows)
    side = "left" if matching.cardinality is Cardinality.ONE_TO_MANY else "right"
    shared = label_set(table.labels(group))
    return (
        f"found duplicate series for the match group {shared} on the {side} hand-side of the operation:"
        f" [{first}, {second}];many-to-many matching not allowed: matching labels must be unique on one side"
    )


def result_labels(matching: VectorMatching, pairs: Pairs, *, unnamed: bool) -> LabelTable:
    """Labels of the result, one row a pair; `unnamed` results lose the metric name at once."""
    table = pairs.many.labels
    if unnamed:
        table = drop(table, METADATA_LABELS)
    if matching.cardinality is Cardinality.ONE_TO_ONE:
        table = keep(table, matching.labels) if matching.on else drop(table, matching.labels)
    table = table.take(pairs.many_rows)
    for name in matching.include:
        table = set_label(table, name, pairs.one.labels.column(name)[pairs.one_rows])
    return table


def check_matches(matching: VectorMatching, pairs: Pairs, labels: LabelTable) -> None:
    """Refuse results that would stand for more than one pair of samples.

    Raises:
        EvalError: a match group has several samples of the 'many' side at one step in one-to-one matching, or
            several with equal result labels otherwise. It does not matter whether a comparison then drops them.
    """
    if matching.cardinality is Cardinality.ONE_TO_ONE:
        keys, n_keys = pairs.groups, pairs.n_groups
        problem = "many-to-one matching must be explicit (group_left/group_right)"
    else:
        keys, firsts = number(_with_group(labels, pairs.groups))
        n_keys = len(firsts)
        problem = "grouping labels must ensure unique matches"
    if not (np.bincount(keys, minlength=1) > 1).any():
        return
    matched = pairs.many.present[pairs.many_rows] & pairs.one.present[pairs.one_rows]
    *_, conflict = collapse(pairs.many.values[pairs.many_rows], matched, keys, n_keys)
    if conflict is not None:
        raise EvalError(f"multiple matches for labels: {problem}")
