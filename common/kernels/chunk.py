"""The values of one chunk (`docs/format/chunk.md`): decimal integers where those keep the bits, else the bits.

Either is one vector. A few values that are no such integer, as the stale marker at a series' end, are listed
behind it.
"""

from __future__ import annotations

import numpy as np

from common.kernels.bitpack import get_varint, load64, put_varint, store64
from common.kernels.jit import device, inlined
from common.kernels.vector import AS_BITS, get_vector

HAS_SPECIALS = 16  # added to the exponent
STALE_BITS = 0x7FF0000000000002
MAX_EXPONENT = 14
# Above this, that a scaled value is an integer is no likelier meant than an accident.
_MOST_SCALED = 2.0**50
_MOST_INTEGER = 2.0**53
# Added and subtracted, it rounds a float below 2^51 to an integer.
_ROUNDER = 1.5 * 2.0**52
_POWERS = np.array([10.0**k for k in range(MAX_EXPONENT + 1)])


@inlined
def _as_integer(bits, value, exponent):
    """(whether integer / 10^exponent has exactly these bits, the integer)."""
    if exponent == 0:
        if not abs(value) <= _MOST_INTEGER:
            return False, np.int64(0)
        integer = np.int64(value)
        return np.float64(integer).view(np.int64) == bits, integer
    scaled = value * _POWERS[exponent]
    if not abs(scaled) <= _MOST_SCALED:
        return False, np.int64(0)
    rounded = (scaled + _ROUNDER) - _ROUNDER
    return np.float64(rounded / _POWERS[exponent]).view(np.int64) == bits, np.int64(rounded)


@inlined
def scale(bits, floats, start, n, integers, specials):
    """Write floats[start : start + n] to `integers`, over one power of ten if that keeps their bits.

    Returns (exponent, n_specials). The few values that are no such integer are listed in `specials` by position
    and take their predecessor's integer; if they are many, the exponent is AS_BITS and the integers are the bits.
    """
    exponent = np.int64(0)
    n_left = n // 8 + 1
    for i in range(start, start + n):
        fits, _ = _as_integer(bits[i], floats[i], exponent)
        if not fits and abs(floats[i]) < _MOST_SCALED:
            for candidate in range(exponent + 1, MAX_EXPONENT + 1):
                fits, _ = _as_integer(bits[i], floats[i], candidate)
                if fits:
                    exponent = candidate
                    break
        if not fits:
            n_left -= 1
            if n_left < 0:
                break
    n_specials = np.int64(0)
    for i in range(n):
        fits, integer = _as_integer(bits[start + i], floats[start + i], exponent)
        if not fits:
            if n_left < 0 or n_specials > n // 8 or n_specials == n - 1:
                for j in range(n):
                    integers[j] = bits[start + j]
                return np.int64(AS_BITS), np.int64(0)
            specials[n_specials] = i
            n_specials += 1
            integer = integers[i - 1] if i > 0 else np.int64(0)
        elif n_specials == i:
            for j in range(i):
                integers[j] = integer
        integers[i] = integer
    if n_specials > 0:
        exponent |= HAS_SPECIALS
    return exponent, n_specials


@device
def put_specials(bits, start, specials, n_specials, out, position):
    """Write the values of a chunk that its integers do not say; returns the position after them."""
    stale = np.int64(1)
    for i in range(n_specials):
        if bits[start + specials[i]] != STALE_BITS:
            stale = np.int64(0)
    position = put_varint(out, position, n_specials << 1 | stale)
    previous = np.int64(0)
    for i in range(n_specials):
        position = put_varint(out, position, specials[i] - previous)
        previous = specials[i]
        if stale == 0:
            position = store64(out, position, bits[start + specials[i]])
    return position


@inlined
def get_values(data, position, end, n, low, high, integers, bits_out, floats_out, at):
    """Read the values [low, high) of a chunk of n to position `at` of the outputs, two views of the same memory.

    Returns the position after the chunk or -1.
    """
    position, exponent = get_vector(data, position, end, n, integers)
    if position < 0:
        return position
    if exponent & AS_BITS == AS_BITS:
        for i in range(high - low):
            bits_out[np.uint64(at + i)] = integers[np.uint64(low + i)]
        return position
    if exponent & AS_BITS == 0:
        for i in range(high - low):
            floats_out[np.uint64(at + i)] = integers[np.uint64(low + i)]
    else:
        power = _POWERS[exponent & AS_BITS]
        for i in range(high - low):
            floats_out[np.uint64(at + i)] = integers[np.uint64(low + i)] / power
    if exponent & HAS_SPECIALS == 0:
        return position
    head, position = get_varint(data, position, end)
    if position < 0:
        return position
    n_specials = (head >> 1) & ((1 << 63) - 1)
    index = np.int64(0)
    for _ in range(n_specials):
        gap, position = get_varint(data, position, end)
        if position < 0 or gap < 0 or gap >= n - index:
            return np.int64(-1)
        index += gap
        special = np.int64(STALE_BITS)
        if head & 1 == 0:
            if position + 8 > end:
                return np.int64(-1)
            special = load64(data, position)
            position += 8
        if low <= index < high:
            bits_out[at + index - low] = special
    return position
