"""Equal rows, rows of one group, and arithmetic on pairs of rows."""

from __future__ import annotations

import numpy as np

from common.kernels.jit import device, kernel

ADD, SUB, MUL, DIV, MOD, POW, ATAN2 = range(7)
EQ, NE, GT, LT, GE, LE = range(7, 13)
FILTER_LEFT, FILTER_RIGHT, BOOL = range(3)

_MULTIPLIER = 0x2545F491
_LOW_31 = 0x7FFFFFFF


@kernel("int64(int32[:, ::1], int64[::1], int64[::1], int64[::1])")
def number_columns(codes, table, ids, firsts):
    """Number the distinct columns of `codes` 0, 1, 2 ... in order of appearance; returns how many there are.

    codes: (n_names, n). table: scratch, its length a power of two > n, filled with -1.
    ids: (n,), the number of each column. firsts: (n,), the first column of each number.
    Equality is decided by the codes, not by their hash.
    """
    mask = len(table) - 1
    count = 0
    for i in range(codes.shape[1]):
        mixed = 1
        for j in range(codes.shape[0]):
            # 31 bits by 30 bits stays below 2^63.
            mixed = (mixed ^ (int(codes[j, i]) & _LOW_31)) * _MULTIPLIER
            mixed = (mixed ^ (mixed >> 30)) & _LOW_31
        slot = mixed & mask
        while True:
            group = table[slot]
            if group < 0:
                table[slot] = count
                firsts[count] = i
                ids[i] = count
                count += 1
                break
            first = firsts[group]
            same = True
            for j in range(codes.shape[0]):
                if codes[j, i] != codes[j, first]:
                    same = False
                    break
            if same:
                ids[i] = group
                break
            slot = (slot + 1) & mask
    return count


@kernel("void(boolean[:, ::1], int64[::1], boolean[:, ::1])")
def mark_groups(present, group, out):
    """out[g, k]: whether any row of group g is present at step k; `out` starts false."""
    for i in range(present.shape[0]):
        g = group[i]
        for k in range(present.shape[1]):
            out[g, k] |= present[i, k]


@kernel("void(float64[:, ::1], boolean[:, ::1], int64[::1], float64[:, ::1], boolean[:, ::1], int64[::1])")
def collapse_rows(values, present, group, out_values, out_present, conflict):
    """Lay the rows of each group on top of one another.

    out_present starts false. Where two rows of a group are present at one step, the first stays, and `conflict`,
    (2,), becomes (step, group) of the earliest such step; it starts with a step beyond the last.
    """
    for i in range(present.shape[0]):
        g = group[i]
        for k in range(present.shape[1]):
            if present[i, k]:
                if not out_present[g, k]:
                    out_present[g, k] = True
                    out_values[g, k] = values[i, k]
                elif k < conflict[0]:
                    conflict[0] = k
                    conflict[1] = g


@device
def _combine(op, a, b):
    """Arithmetic as Go's math package and IEEE 754 have it; C's functions have the same special cases."""
    if op == ADD:
        return a + b
    if op == SUB:
        return a - b
    if op == MUL:
        return a * b
    if op == DIV:
        return a / b
    if op == MOD:
        return np.fmod(a, b)
    if op == POW:
        return np.power(a, b)
    return np.arctan2(a, b)


@device
def _holds(op, a, b):
    if op == EQ:
        return a == b
    if op == NE:
        return a != b
    if op == GT:
        return a > b
    if op == LT:
        return a < b
    if op == GE:
        return a >= b
    return a <= b


@kernel(
    "void(int64, int64, float64[:, ::1], boolean[:, ::1], int64[::1], float64[:, ::1], boolean[:, ::1],"
    " int64[::1], float64[:, ::1], boolean[:, ::1])"
)
def combine_rows(op, mode, left, left_present, left_rows, right, right_present, right_rows, out, present):
    """Row i of the result is left[left_rows[i]] op right[right_rows[i]], present where both are.

    mode, for comparisons: FILTER_LEFT and FILTER_RIGHT keep the value of that side where the comparison holds,
    BOOL gives 0 or 1.
    """
    for i in range(len(left_rows)):
        a = left[left_rows[i]]
        b = right[right_rows[i]]
        in_a = left_present[left_rows[i]]
        in_b = right_present[right_rows[i]]
        if op < EQ:
            for k in range(out.shape[1]):
                present[i, k] = in_a[k] & in_b[k]
                out[i, k] = _combine(op, a[k], b[k])
        elif mode == BOOL:
            for k in range(out.shape[1]):
                present[i, k] = in_a[k] & in_b[k]
                out[i, k] = 1.0 if _holds(op, a[k], b[k]) else 0.0
        else:
            for k in range(out.shape[1]):
                present[i, k] = in_a[k] & in_b[k] & _holds(op, a[k], b[k])
                out[i, k] = a[k] if mode == FILTER_LEFT else b[k]
