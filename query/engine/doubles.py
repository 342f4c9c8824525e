"""Arithmetic on pairs of floats, (high, low), whose sum is meant: some 100 bits instead of 53.

Source: Dekker, A floating-point technique for extending the available precision (1971), and Knuth's TwoSum. What
is not finite gives NaN or infinity, without a warning if the caller silences numpy.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Pair: TypeAlias = tuple[Floats, Floats]

_SPLITTER = 134217729.0


def two_sum(a: Floats, b: Floats) -> Pair:
    """a + b without loss; the high part is the sum as rounded."""
    high = a + b
    part = high - a
    return high, (a - (high - part)) + (b - part)


def two_product(a: Floats, b: Floats) -> Pair:
    """a × b without loss, unless that is very large or small."""
    high = a * b
    a_high, b_high = _upper(a), _upper(b)
    a_low, b_low = a - a_high, b - b_high
    return high, ((a_high * b_high - high) + a_high * b_low + a_low * b_high) + a_low * b_low


def add(a: Pair, b: Pair) -> Pair:
    high, low = two_sum(a[0], b[0])
    return two_sum(high, low + (a[1] + b[1]))


def subtract(a: Pair, b: Pair) -> Pair:
    return add(a, (-b[0], -b[1]))


def multiply(a: Pair, b: Pair) -> Pair:
    high, low = two_product(a[0], b[0])
    return two_sum(high, low + (a[0] * b[1] + a[1] * b[0]))


def divide(a: Pair, b: Floats) -> Pair:
    high = a[0] / b
    back, lost = two_product(high, b)
    return two_sum(high, (((a[0] - back) - lost) + a[1]) / b)


def _upper(a: Floats) -> Floats:
    far = _SPLITTER * a
    return far - (far - a)
