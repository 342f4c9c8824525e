"""Samples as JSON text in Prometheus' form: `[[1435781430,"1"],[1435781445.001,"0.5"]]`."""

from __future__ import annotations

import numpy as np

from common.kernels.jit import inlined, kernel
from common.kernels.shortest import shortest

POINT_BYTES = 64
"""Upper limit of the text of one point, what is written beyond its end and overwritten included."""
_TIMES = 1024
"""Times whose text is remembered: all series of a matrix have the same."""
_TIME_BYTES = 32
_0, _1, _2, _3, _4, _6, _8, _10, _100, _1000, _10000, _1E8 = (
    np.uint64(n) for n in (0, 1, 2, 3, 4, 6, 8, 10, 100, 1000, 10_000, 100_000_000)
)
_48 = np.uint64(48)
_SIGN = np.uint64(1 << 63)
_PAIRS = np.frombuffer("".join(f"{n:02}" for n in range(100)).encode(), dtype=np.uint8).copy()
_POWERS = np.array([10**n for n in range(9)], dtype=np.uint64)


@inlined
def _count_small(value):
    """Digits of a uint64 below 10^8."""
    return np.uint64(
        1
        + (value >= np.uint64(10))
        + (value >= np.uint64(100))
        + (value >= np.uint64(1000))
        + (value >= np.uint64(10_000))
        + (value >= np.uint64(100_000))
        + (value >= np.uint64(1_000_000))
        + (value >= np.uint64(10_000_000))
    )


@inlined
def count_digits(value):
    """Of a uint64 in decimal, at most 20."""
    if value < _1E8:
        return _count_small(value)
    value //= _1E8
    if value < _1E8:
        return _8 + _count_small(value)
    return _8 + _8 + _count_small(value // _1E8)


@inlined
def _write_pair(out, at, pair):
    out[at] = _PAIRS[_2 * pair]
    out[at + _1] = _PAIRS[_2 * pair + _1]


@inlined
def _write_eight(out, at, value):
    """Write a uint64 below 10^8 as eight digits."""
    high = value // _10000
    low = value - high * _10000
    first = high // _100
    third = low // _100
    _write_pair(out, at, first)
    _write_pair(out, at + _2, high - first * _100)
    _write_pair(out, at + _4, third)
    _write_pair(out, at + _6, low - third * _100)


@inlined
def _write_small(out, at, value):
    """Write a uint64 below 10^8; the eight bytes from `at` on are overwritten."""
    n = _count_small(value)
    _write_eight(out, at, value * _POWERS[_8 - n])
    return at + n


@inlined
def write_digits(out, at, value):
    """Write a uint64 in decimal; returns the position behind it, behind which seven bytes may be overwritten."""
    if value < _1E8:
        return _write_small(out, at, value)
    high = value // _1E8
    if high < _1E8:
        at = _write_small(out, at, high)
    else:
        top = high // _1E8
        at = _write_small(out, at, top)
        _write_eight(out, at, high - top * _1E8)
        at += _8
    _write_eight(out, at, value - high * _1E8)
    return at + _8


@inlined
def write_time(out, at, time_ms):
    """Seconds, with three decimals only where there are milliseconds."""
    if time_ms < 0:
        out[at] = 45
        at += _1
        if time_ms == -9223372036854775808:
            time_ms += 1  # has no positive twin; one millisecond off after 292 million years
        time_ms = -time_ms
    whole = np.uint64(time_ms)
    seconds = whole // _1000
    fraction = whole - seconds * _1000
    at = write_digits(out, at, seconds)
    if fraction != _0:
        out[at] = 46
        out[at + _1] = _48 + fraction // _100
        _write_pair(out, at + _2, fraction % _100)
        at += _4
    return at


@inlined
def write_decimal(out, at, digits, exponent):
    """Write digits · 10^exponent as Go does: plain for 1e-6 <= v < 1e21, else with an exponent."""
    while True:
        rest = digits // _10
        if digits != rest * _10:
            break
        digits = rest
        exponent += 1
    n = np.int64(count_digits(digits))
    point = n + exponent  # position of the decimal point relative to the first digit
    if 0 < point < n:
        end = write_digits(out, at + _1, digits)
        behind = at + np.uint64(point)
        while at < behind:
            out[at] = out[at + _1]
            at += _1
        out[behind] = 46
        return end
    if -5 <= point <= 0:
        out[at] = 48
        out[at + _1] = 46
        at += _2
        for _ in range(-point):
            out[at] = 48
            at += _1
        return write_digits(out, at, digits)
    if 0 < point <= 21:
        at = write_digits(out, at, digits)
        for _ in range(point - n):
            out[at] = 48
            at += _1
        return at
    # The first digit is moved to the left of the point afterwards.
    end = write_digits(out, at + _1, digits)
    out[at] = out[at + _1]
    out[at + _1] = 46
    at = end if n > 1 else at + _1
    exponent = point - 1
    out[at] = 101
    out[at + _1] = 45 if exponent < 0 else 43
    at += _2
    exponent = abs(exponent)
    if exponent < 10:
        out[at] = 48
        at += _1
    return write_digits(out, at, np.uint64(exponent))


@inlined
def _write_thousandths(out, at, value):
    """Write a uint64 of thousandths that is no multiple of 1000."""
    whole = value // _1000
    rest = value - whole * _1000
    at = write_digits(out, at, whole)
    tenths = rest // _100
    pair = rest - tenths * _100
    out[at] = 46
    out[at + _1] = _48 + tenths
    _write_pair(out, at + _2, pair)
    if pair == _0:
        return at + _2
    return at + _3 if pair % _10 == _0 else at + _4


@inlined
def _write_name(out, at, value, bits):
    """Write what is no finite number; the minus sign of an infinity is there already."""
    if value != value:
        out[at] = 78
        out[at + _1] = 97
        out[at + _2] = 78
        return at + _3
    if bits & _SIGN == _0:
        out[at] = 43
        at += _1
    out[at] = 73
    out[at + _1] = 110
    out[at + _2] = 102
    return at + _3


@kernel(
    "int64(uint8[::1], int64[::1], uint8[::1], int64[::1], int64[::1], float64[::1], uint64[::1], uint8[::1],"
    " int64[::1])"
)
def write_rows(heads, head_ends, tail, offsets, timestamps, values, bits, out, ends):
    """Write rows one after another: the row's head, its points with commas between, the tail.

    heads: uint8, those of all rows. head_ends: int64 (n_rows,) into it. tail: uint8, the same for all.
    offsets: int64 (n_rows + 1,) into timestamps and values. bits: the values as uint64.
    out: uint8, for each point POINT_BYTES, and room for heads and tails; what is behind the text is undefined.
    ends: int64 (n_rows,), set to the end of each row's text. Returns the length of the text.
    """
    known = np.zeros(_TIMES, dtype=np.int64)
    sizes = np.zeros(_TIMES, dtype=np.uint64)
    texts = np.empty(_TIMES * _TIME_BYTES, dtype=np.uint8)
    # Positions are unsigned, for a signed index might count from the end, which each byte would be asked about.
    at = _0
    head = _0
    for row in range(offsets.size - 1):
        until = np.uint64(head_ends[row])
        while head < until:
            out[at] = heads[head]
            at += _1
            head += _1
        first = offsets[row]
        last = offsets[row + 1]
        for i in range(first, last):
            slot = (i - first) % _TIMES
            if sizes[slot] == _0 or known[slot] != timestamps[i]:
                known[slot] = timestamps[i]
                begin = np.uint64(slot * _TIME_BYTES)
                texts[begin] = 91
                end = write_time(texts, begin + _1, timestamps[i])
                texts[end] = 44
                texts[end + _1] = 34
                sizes[slot] = end + _2 - begin
            begin = np.uint64(slot * _TIME_BYTES)
            size = sizes[slot]
            for k in range(size):
                out[at + k] = texts[begin + k]
            at += size
            value = abs(values[i])
            if bits[i] & _SIGN != _0 and value == value:
                out[at] = 45
                at += _1
            # By way of int64, which is one instruction.
            whole = np.int64(value) if value < 1e15 else np.int64(-1)
            thousandths = np.rint(value * 1000.0) if value < 1e12 else -1.0
            if np.float64(whole) == value:
                at = write_digits(out, at, np.uint64(whole))
            elif thousandths / 1000.0 == value:
                # No two decimals of up to 15 digits are the same float, so that this one is the shortest.
                at = _write_thousandths(out, at, np.uint64(np.int64(thousandths)))
            elif value < np.inf:
                digits, exponent = shortest(bits[i] & ~_SIGN)
                at = write_decimal(out, at, digits, exponent)
            else:
                at = _write_name(out, at, value, bits[i])
            out[at] = 34
            out[at + _1] = 93
            out[at + _2] = 44
            at += _3
        if last > first:
            at -= _1
        for k in range(tail.size):
            out[at] = tail[k]
            at += _1
        ends[row] = at
    return np.int64(at)
