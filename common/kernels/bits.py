"""Bits one behind another, the most significant first, and the codes of Prometheus' chunks that are made of them.

Source of the codes: `varbit.go` and `xor.go` of Prometheus' `tsdb/chunkenc`; for the values, T. Pelkonen et al.,
"Gorilla: A Fast, Scalable, In-Memory Time Series Database" (2015), section 4.1.2.

A position counts bits. What lies behind it need not be zero.
"""

from __future__ import annotations

import numpy as np

from common.kernels.jit import device

NO_WINDOW = 255
"""Leading zeros of a series of values of which no difference has been written yet."""

_0 = np.uint64(0)
_1 = np.uint64(1)
_FF = np.uint64(0xFF)
_LONGEST_LEADING = 31


@device
def put_bits(out, at, value, width):
    """Append the lowest `width` bits of a uint64; returns the position behind them."""
    byte = at >> 3
    left = width
    used = at & 7
    if used:
        free = 8 - used
        if left <= free:
            part = value & ((_1 << np.uint64(left)) - _1)
            kept = np.uint64(out[byte]) & (_FF << np.uint64(free))
            out[byte] = np.uint8(kept | (part << np.uint64(free - left)))
            return at + width
        left -= free
        part = (value >> np.uint64(left)) & ((_1 << np.uint64(free)) - _1)
        kept = np.uint64(out[byte]) & (_FF << np.uint64(free))
        out[byte] = np.uint8(kept | part)
        byte += 1
    while left >= 8:
        left -= 8
        out[byte] = np.uint8((value >> np.uint64(left)) & _FF)
        byte += 1
    if left:
        out[byte] = np.uint8((value << np.uint64(8 - left)) & _FF)
    return at + width


@device
def leading_zeros(value):
    """Of a uint64 other than 0."""
    n = 0
    if value >> np.uint64(32) == _0:
        n += 32
        value <<= np.uint64(32)
    if value >> np.uint64(48) == _0:
        n += 16
        value <<= np.uint64(16)
    if value >> np.uint64(56) == _0:
        n += 8
        value <<= np.uint64(8)
    if value >> np.uint64(60) == _0:
        n += 4
        value <<= np.uint64(4)
    if value >> np.uint64(62) == _0:
        n += 2
        value <<= np.uint64(2)
    if value >> np.uint64(63) == _0:
        n += 1
    return n


@device
def trailing_zeros(value):
    """Of a uint64 other than 0."""
    return 63 - leading_zeros(value & (~value + _1))


@device
def put_xor(out, at, bits, before, leading, trailing):
    """Append how a value differs from the one before. Returns the position, and the window of bits now in use.

    bits, before: uint64, of the values. leading, trailing: the window, leading being NO_WINDOW at first.
    """
    # Every call of `put_bits` is compiled anew where it stands, so there are as few as can be.
    delta = bits ^ before
    head, head_width, width = _0, 1, 0
    if delta != _0:
        first, last = min(leading_zeros(delta), _LONGEST_LEADING), trailing_zeros(delta)
        head, head_width = np.uint64(0b10), 2
        if leading > first or trailing > last:
            leading, trailing = first, last
            # All 64 bits are written as 0, which stands for nothing else.
            head = np.uint64(0b11 << 11 | first << 6 | ((64 - first - last) & 63))
            head_width = 13
        width = 64 - leading - trailing
        delta >>= np.uint64(trailing)
    at = put_bits(out, at, head, head_width)
    return put_bits(out, at, delta, width), leading, trailing


@device
def fits(value, width):
    """Whether an int64 is among the numbers that a code of this width stands for."""
    half = np.int64(1) << np.int64(width - 1)
    return -half < value <= half


@device
def _put_varbit(out, at, bits, width):
    """Append a number in one of the widths 0, 3, 6, 9, 12, 18, 25, 56, 64: a prefix says which it is."""
    ones = 8
    if width <= 12:
        ones = width // 3
    elif width == 18:
        ones = 5
    elif width == 25:
        ones = 6
    elif width == 56:
        ones = 7
    # A prefix ends with a zero, unless it is the longest.
    prefix = _FF if ones == 8 else (_1 << np.uint64(ones + 1)) - np.uint64(2)
    at = put_bits(out, at, prefix, min(ones + 1, 8))
    return put_bits(out, at, bits, width)


@device
def put_varbit_int(out, at, value):
    """Append an int64; returns the position behind it."""
    width = 64
    if value == 0:
        width = 0
    elif fits(value, 12):
        width = 3
        while not fits(value, width):
            width += 3
    elif fits(value, 18):
        width = 18
    elif fits(value, 25):
        width = 25
    elif fits(value, 56):
        width = 56
    return _put_varbit(out, at, np.uint64(value), width)


@device
def put_varbit_uint(out, at, value):
    """Append a uint64; returns the position behind it."""
    width = 0
    if value != _0:
        needed = 64 - leading_zeros(value)
        width = 64
        if needed <= 12:
            width = (needed + 2) // 3 * 3
        elif needed <= 18:
            width = 18
        elif needed <= 25:
            width = 25
        elif needed <= 56:
            width = 56
    return _put_varbit(out, at, value, width)
