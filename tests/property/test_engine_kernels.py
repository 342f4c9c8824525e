"""The engine's kernels against plain Python."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.kernels.aggregate import (
    AVG,
    BOTTOM,
    COUNT,
    FIRST,
    MAX,
    MIN,
    SCALE,
    SUM,
    TOP,
    fold_groups,
    group_quantiles,
    pick_rows,
    settle_ties,
    spread_groups,
)
from common.kernels.match import (
    ADD,
    BOOL,
    FILTER_LEFT,
    FILTER_RIGHT,
    LE,
    collapse_rows,
    combine_rows,
    mark_groups,
    number_columns,
)
from common.kernels.select import interpolate, look_back
from common.store import STALE_NAN_BITS
from tests.oracles.promql import arithmetic, compare, quantile

OPERATORS = ("+", "-", "*", "/", "%", "^", "atan2", "==", "!=", ">", "<", ">=", "<=")
NUMBERS = st.one_of(st.integers(-4, 4).map(float), st.sampled_from([math.nan, math.inf, -math.inf, 0.5, -0.0]))
MANY = settings(deadline=None, max_examples=60)


@st.composite
def grids(draw: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64], int]:
    """Values, presence and the group of each row; every group has a row."""
    n_rows, n_steps = draw(st.integers(1, 7)), draw(st.integers(1, 4))
    cells = draw(st.lists(NUMBERS, min_size=n_rows * n_steps, max_size=n_rows * n_steps))
    present = draw(st.lists(st.booleans(), min_size=n_rows * n_steps, max_size=n_rows * n_steps))
    group = draw(st.lists(st.integers(0, 2), min_size=n_rows, max_size=n_rows))
    distinct, ids = np.unique(group, return_inverse=True)
    shape = (n_rows, n_steps)
    return np.array(cells).reshape(shape), np.array(present).reshape(shape), ids.astype(np.int64), len(distinct)


def members(group: NDArray[np.int64], n_groups: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    starts = np.array([np.count_nonzero(group < g) for g in range(n_groups + 1)], dtype=np.int64)
    return np.argsort(group, kind="stable"), starts


def same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-12)


@MANY
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 2)), max_size=20))
def test_equal_columns_get_equal_numbers_in_order_of_appearance(columns: list[tuple[int, int]]) -> None:
    codes = np.array(columns, dtype=np.int32).reshape(-1, 2).T.copy()
    ids, firsts = np.zeros(len(columns), np.int64), np.zeros(len(columns), np.int64)
    count = number_columns(codes, np.full(64, -1, dtype=np.int64), ids, firsts)
    numbers = {column: k for k, column in enumerate(dict.fromkeys(columns))}
    assert ids.tolist() == [numbers[column] for column in columns]
    assert firsts[:count].tolist() == [columns.index(column) for column in numbers]


@MANY
@given(grids(), st.sampled_from([SUM, AVG, COUNT, MIN, MAX]))
def test_groups_are_folded_row_by_row(grid: tuple, op: int) -> None:
    values, present, group, n_groups = grid
    shape = (n_groups, values.shape[1])
    total, error, count = (np.zeros(shape) for _ in range(3))
    scaled = np.zeros(shape, dtype=np.bool_)
    half = len(group) // 2
    for rows in (slice(0, half), slice(half, None)):
        fold_groups(op, values[rows], present[rows], group[rows], total, error, count, scaled)
    for g in range(n_groups):
        for k in range(shape[1]):
            cells = values[(group == g) & present[:, k], k].tolist()
            assert count[g, k] == len(cells)
            if not cells or op == COUNT:
                continue
            real = [v for v in cells if not math.isnan(v)]
            if op in (SUM, AVG):
                assert same(total[g, k] + error[g, k], sum(cells))
                assert not scaled[g, k]
            else:
                first = min if op == MIN else max
                best = first(real, key=lambda v: (v, math.copysign(1.0, v)), default=math.nan)
                assert same(total[g, k], best)
                assert math.isnan(best) or math.copysign(1.0, total[g, k]) == math.copysign(1.0, best)


@MANY
@given(st.lists(st.sampled_from([1.7e308, -1.7e308, 1e300, 3.0, -1e308]), min_size=1, max_size=9))
def test_a_sum_that_overflows_on_its_way_is_none_the_worse(cells: list[float]) -> None:
    total, error, count = (np.zeros((1, 1)) for _ in range(3))
    scaled = np.zeros((1, 1), dtype=np.bool_)
    column = np.array(cells).reshape(-1, 1)
    present, group = np.ones(column.shape, dtype=np.bool_), np.zeros(len(cells), dtype=np.int64)
    fold_groups(SUM, column, present, group, total, error, count, scaled)
    exact = math.fsum(cell * SCALE for cell in cells)
    assert same((total[0, 0] + error[0, 0]) * (1.0 if scaled[0, 0] else SCALE), exact)


@MANY
@given(grids())
def test_variances_are_made_of_two_sums(grid: tuple) -> None:
    values, present, group, n_groups = grid
    count, pivot, total, error, squares, squares_error = (np.zeros((n_groups, values.shape[1])) for _ in range(6))
    half = len(group) // 2
    for rows in (slice(0, half), slice(half, None)):
        sums = (total, error, squares, squares_error)
        spread_groups(values[rows], present[rows], group[rows], count, pivot, *sums)
    for g in range(n_groups):
        for k in range(values.shape[1]):
            cells = values[(group == g) & present[:, k], k].tolist()
            assert count[g, k] == len(cells)
            if not all(map(math.isfinite, cells)):
                assert math.isnan(squares[g, k])
            elif cells:
                assert total[g, k] + error[g, k] == sum(cell - cells[0] for cell in cells)
                assert squares[g, k] + squares_error[g, k] == sum((cell - cells[0]) ** 2 for cell in cells)


@MANY
@given(grids(), st.sampled_from([TOP, BOTTOM, FIRST]), st.lists(st.integers(0, 9), min_size=4, max_size=4))
def test_the_rows_picked_are_no_worse_than_the_others(grid: tuple, which: int, limits: list[int]) -> None:
    values, present, group, n_groups = grid
    out = np.zeros_like(present)
    k_of_step = np.array(limits[: values.shape[1]], dtype=np.int64)
    tied, tie = np.zeros((n_groups, values.shape[1]), dtype=np.bool_), np.zeros((n_groups, values.shape[1]))
    by_group = members(group, n_groups)
    pick_rows(which, values, present, *by_group, k_of_step, out, tied, tie)
    settle_ties(values, present, *by_group, tied, tie, out)
    assert not (out & ~present).any()
    worst_first = {TOP: lambda v: v, BOTTOM: lambda v: -v}
    for g in range(n_groups):
        for k, limit in enumerate(k_of_step.tolist()):
            there = np.flatnonzero((group == g) & present[:, k]).tolist()
            picked = [row for row in there if out[row, k]]
            assert len(picked) == min(limit, len(there))
            left = [values[row, k] for row in there if row not in picked]
            if which == FIRST:
                assert picked == there[: len(picked)]
            elif picked and left:
                keys = [(not math.isnan(v), 0.0 if math.isnan(v) else worst_first[which](v)) for v in left]
                mine = [values[row, k] for row in picked]
                worst = min((not math.isnan(v), 0.0 if math.isnan(v) else worst_first[which](v)) for v in mine)
                assert worst >= max(keys)
                assert tied[g, k] == (worst == max(keys))
                if tied[g, k]:
                    alike = [row for row in there if same(values[row, k], tie[g, k])]
                    stay = [out[row, k] for row in alike]
                    assert stay == sorted(stay, reverse=True), "the first of them stay"


def test_many_rows_are_picked_in_several_passes() -> None:
    values = np.random.default_rng(5).random((3000, 400))
    out = np.zeros(values.shape, dtype=np.bool_)
    limits = np.full(400, 2000, dtype=np.int64)
    order, starts = np.arange(3000), np.array([0, 3000])
    tied, tie = np.zeros((1, 400), dtype=np.bool_), np.zeros((1, 400))
    pick_rows(TOP, values, np.ones_like(out), order, starts, limits, out, tied, tie)
    assert not tied.any()
    assert (out == (values >= np.sort(values, axis=0)[1000])).all()


@MANY
@given(grids(), st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0, -0.1, 1.1, math.nan]))
def test_quantiles_are_those_of_the_sorted_members(grid: tuple, q: float) -> None:
    values, present, group, n_groups = grid
    out = np.zeros((n_groups, values.shape[1]))
    out_present = np.zeros(out.shape, dtype=np.bool_)
    group_quantiles(np.full(values.shape[1], q), values, present, *members(group, n_groups), out, out_present)
    for g in range(n_groups):
        for k in range(values.shape[1]):
            cells = values[(group == g) & present[:, k], k].tolist()
            assert out_present[g, k] == bool(cells)
            assert not cells or same(out[g, k], quantile(q, cells))


@MANY
@given(grids())
def test_rows_of_a_group_are_laid_on_top_of_one_another(grid: tuple) -> None:
    values, present, group, n_groups = grid
    n_steps = values.shape[1]
    out, out_present = np.zeros((n_groups, n_steps)), np.zeros((n_groups, n_steps), dtype=np.bool_)
    marks = np.zeros_like(out_present)
    conflict = np.array([n_steps, -1])
    collapse_rows(values, present, group, out, out_present, conflict)
    mark_groups(present, group, marks)
    assert (marks == out_present).all()
    steps_in_conflict = []
    for g in range(n_groups):
        for k in range(n_steps):
            rows = np.flatnonzero((group == g) & present[:, k])
            assert out_present[g, k] == (len(rows) > 0)
            if len(rows):
                assert same(out[g, k], values[rows[0], k])
            if len(rows) > 1:
                steps_in_conflict.append((k, g))
    earliest = min((k for k, _ in steps_in_conflict), default=n_steps)
    assert conflict[0] == earliest
    assert conflict[1] == -1 if not steps_in_conflict else tuple(conflict) in steps_in_conflict


@MANY
@given(st.sampled_from(range(ADD, LE + 1)), st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=8))
def test_cells_are_combined_as_ieee_754_says(op: int, pairs: list[tuple[float, float]]) -> None:
    left, right = (np.array([[pair[side] for pair in pairs]]) for side in (0, 1))
    there, row = np.ones(left.shape, dtype=np.bool_), np.zeros(1, dtype=np.int64)
    for mode in (FILTER_LEFT, FILTER_RIGHT, BOOL):
        out, present = np.zeros_like(left), np.zeros_like(there)
        combine_rows(op, mode, left, there, row, right, there, row, out, present)
        for k, (a, b) in enumerate(pairs):
            if op <= 6:
                assert present[0, k]
                assert same(out[0, k], arithmetic(OPERATORS[op], a, b)), (OPERATORS[op], a, b)
            elif mode == BOOL:
                assert present[0, k]
                assert out[0, k] == compare(OPERATORS[op], a, b)
            else:
                assert present[0, k] == compare(OPERATORS[op], a, b)
                assert same(out[0, k], a if mode == FILTER_LEFT else b)


@MANY
@given(
    st.lists(st.lists(st.integers(0, 60), unique=True, max_size=12).map(sorted), min_size=1, max_size=4),
    st.integers(1, 20),
    st.integers(-5, 10),
    st.integers(1, 15),
)
def test_looking_back_and_interpolating_take_the_samples_around_a_step(
    times: list[list[int]], lookback: int, first: int, distance: int
) -> None:
    offsets = np.cumsum([0, *map(len, times)])
    timestamps = np.array([t for row in times for t in row], dtype=np.int64)
    values = timestamps * 2.0 + 1.0
    bits = values.view(np.int64).copy()
    bits[timestamps % 7 == 0] = STALE_NAN_BITS
    ends = np.arange(first, 70, distance, dtype=np.int64)
    shape = (len(times), len(ends))
    out, line = np.zeros(shape, dtype=np.int64), np.zeros(shape)
    present, on_line = np.zeros(shape, dtype=np.bool_), np.zeros(shape, dtype=np.bool_)
    look_back(offsets, timestamps, bits, ends, lookback, True, out, present)
    interpolate(offsets, timestamps, values, ends, lookback, line, on_line)
    for i, row in enumerate(times):
        for k, end in enumerate(ends.tolist()):
            before = [t for t in row if end - lookback < t <= end]
            after = [t for t in row if end < t <= end + lookback]
            assert present[i, k] == bool(before and before[-1] % 7)
            if present[i, k]:
                assert out[i, k] == before[-1]
            assert on_line[i, k] == bool(before)
            if before:
                # The values lie on a line themselves.
                assert same(line[i, k], 2.0 * (end if after else before[-1]) + 1.0)


def test_the_kernels_are_plain_python_without_the_compiler() -> None:
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "pytest",
        "-q",
        "-W",
        "ignore",
        "-p",
        "no:cacheprovider",
        __file__,
    ]
    chosen = ["-k", "not compiler and not several_passes", "--hypothesis-seed=1"]
    done = subprocess.run(
        command + chosen, env={**os.environ, "NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout[-3000:]
