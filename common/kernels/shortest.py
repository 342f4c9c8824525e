"""The shortest decimal digits that give a float64 back, the nearest to it if there are several.

Source: Raffaele Giulietti, 'The Schubfach way to render doubles' (2021), section 9, whose names are kept.
A float c · 2^q stands for what lies between the middles to its neighbours. Scaled by 10^-k so that this is
one wide or more, and less than ten, it holds a whole number, and at most one that is a multiple of ten.
"""

from __future__ import annotations

import numpy as np

from common.kernels.jit import inlined

_FIRST, _LAST = -292, 324
"""Exponents of the powers of ten that floats need."""


def _power(exponent: int) -> int:
    """10^exponent · 2^i, rounded up to whole, with that i for which it has 128 bits."""
    whole: int = 10 ** abs(exponent)
    if exponent < 0:
        return -(-(1 << (127 + whole.bit_length())) // whole)
    shift = whole.bit_length() - 128
    return whole << -shift if shift <= 0 else -(-whole >> shift)


_POWERS = np.array(
    [divmod(_power(exponent), 1 << 64) for exponent in range(_FIRST, _LAST + 1)], dtype=np.uint64
)  # (617, 2): the high and the low half of each
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_MOST = np.uint64(0xFFFFFFFFFFFFFFFF)
_FRACTION = np.uint64(0xFFFFFFFFFFFFF)
_HIDDEN = np.uint64(0x10000000000000)
_0, _1, _2, _4, _10, _40 = (np.uint64(n) for n in (0, 1, 2, 4, 10, 40))


@inlined
def _product(a, b):
    """The high and the low half of a · b."""
    a_low = a & _LOW
    a_high = a >> _32
    b_low = b & _LOW
    b_high = b >> _32
    low = a_low * b_low
    first = a_high * b_low
    second = a_low * b_high
    middle = (low >> _32) + (first & _LOW) + (second & _LOW)
    high = a_high * b_high + (first >> _32) + (second >> _32) + (middle >> _32)
    return high, (middle << _32) | (low & _LOW)


@inlined
def _scaled(power_high, power_low, number):
    """The top 64 bits of power · number, with the last one set if what is cut off is not nothing (or nearly)."""
    carried, _ = _product(power_low, number)
    high, low = _product(power_high, number)
    room = _MOST - low
    if carried > room:
        high += _1
        rest = carried - room - _1
    else:
        rest = low + carried
    return high | _1 if rest > _1 else high


@inlined
def shortest(bits):
    """(digits, exponent) of a finite float above 0 of these bits: digits · 10^exponent; may end in zeros."""
    fraction = bits & _FRACTION
    biased = np.int64(bits >> np.uint64(52))
    if biased != 0:
        c = fraction | _HIDDEN
        q = biased - 1075
    else:
        c = fraction
        q = np.int64(-1074)
    # Below a power of two the floats are twice as dense.
    closer = fraction == _0 and biased > 1
    k = (q * 1262611 - (524031 if closer else 0)) >> 22
    row = -k - _FIRST
    h = np.uint64(q + ((-k * 1741647) >> 19) + 1)
    power_high = _POWERS[row, 0]
    power_low = _POWERS[row, 1]
    value = _scaled(power_high, power_low, (_4 * c) << h)
    lower = _scaled(power_high, power_low, (_4 * c - (_1 if closer else _2)) << h)
    upper = _scaled(power_high, power_low, (_4 * c + _2) << h)
    if c & _1:
        # The middles themselves are read as the neighbours.
        lower += _1
        upper -= _1
    s = value >> _2
    if s >= _10:
        tens = s // _10
        below = lower <= _40 * tens
        above = _40 * tens + _40 <= upper
        if below != above:
            return (tens + _1 if above else tens), k + 1
    below = lower <= _4 * s
    above = _4 * s + _4 <= upper
    if below != above:
        return (s + _1 if above else s), k
    middle = _4 * s + _2
    if value > middle or (value == middle and s & _1):
        return s + _1, k
    return s, k
