"""The codec of one vector of integers and of one chunk of values (`docs/format/chunk.md`).

Everything that a block stores is a *vector*: a first value, a divisor, and residuals of the values themselves,
of their differences or of the differences' differences, in groups of GROUP. A group is a base, fields of one width, and
a list of the few that do not fit. Values are decimal integers where that reproduces their bits, else
their bits taken as integers.

All arithmetic is modulo 2^64, so that any int64 may follow any other.
"""

from __future__ import annotations

import numpy as np

from common.kernels.bitpack import (
    WIDEST,
    bit_length,
    get_varint,
    load64,
    pack,
    packed_size,
    put_varint,
    store64,
    unpack,
    unzigzag,
    zigzag,
)
from common.kernels.jit import device

GROUP = 256  # residuals in a group; positions in it take one byte
CONSTANT, RAW, DELTA, DOUBLE_DELTA = 0, 1, 2, 3
HAS_DIVISOR = 4
EXPONENT_SHIFT = 3
AS_BITS = 15  # the exponent that says: not decimal, the bits themselves
HAS_SPECIALS = 16
STALE_BITS = 0x7FF0000000000002
MAX_EXPONENT = 14
# An integer above this and scaled by a power of ten is no likelier a decimal than an accident.
_MOST_SCALED = 2.0**50
_MOST_INTEGER = 2.0**53
# Added and subtracted, it rounds a float below 2^51 to an integer.
_ROUNDER = 1.5 * 2.0**52
_POWERS = np.array([10.0**k for k in range(MAX_EXPONENT + 1)])
_NO_FIT = 1 << 62
_HAS_EXCEPTIONS = 128
_MIN_INT64 = -(1 << 63)
# Below this many residuals a list of exceptions never pays.
_FEWEST_FOR_EXCEPTIONS = 8
_BINS = 132  # 0..65 by bit length from the base upwards, 66..131 downwards
# Rows of the encoder's scratch memory.
STEPS, RESIDUALS, PLANS, HISTOGRAM, DISTANCES, EXCEPTIONS, FLAGS = 0, 1, 2, 3, 4, 5, 6
N_SCRATCH = 7


@device
def _price(residuals, start, count, base, histogram):
    """(bits, width) of the cheapest way to store a group above `base`."""
    for b in range(_BINS):
        histogram[b] = 0
    for i in range(count):
        distance = residuals[np.uint64(start + i)] - base
        sign = distance >> 63
        histogram[np.uint64(bit_length(distance ^ sign) - 66 * sign)] += 1
    n_exceptions = 0
    longest = 0
    for b in range(65):
        if histogram[66 + b] > 0:
            n_exceptions += histogram[66 + b]
            longest = b
    top = 64
    while top > 0 and histogram[top] == 0:
        top -= 1
    exception_width = max(top, longest) + 1
    if exception_width > WIDEST:
        exception_width = 64
    overhead = 8 + 8 * ((bit_length(zigzag(base) & ((1 << 63) - 1)) + 6) // 7)
    best, best_width = overhead + 64 * count, 64
    for width in range(top, -1, -1):
        if histogram[width] > 0 or width == 0:
            if width <= WIDEST and n_exceptions < GROUP:
                bits = overhead + count * width
                if n_exceptions > 0:
                    bits += 16 + min(8 * n_exceptions, count) + n_exceptions * exception_width
                if bits < best:
                    best, best_width = bits, width
            n_exceptions += histogram[width]
    return best, best_width


@device
def _plan_group(residuals, start, count, histogram):
    """(bits, base, width) for the group residuals[start : start + count]."""
    low = residuals[start]
    high = low
    for i in range(count):
        low = min(low, residuals[np.uint64(start + i)])
        high = max(high, residuals[np.uint64(start + i)])
    span = high - low
    if span == 0:
        return 8 + 8 * ((bit_length(zigzag(low) & ((1 << 63) - 1)) + 6) // 7), low, 0
    if count < _FEWEST_FOR_EXCEPTIONS:
        width = bit_length(span) if span > 0 else 64
        if width > WIDEST:
            width = 64
        return 8 + 8 * ((bit_length(zigzag(low) & ((1 << 63) - 1)) + 6) // 7) + count * width, low, width
    best, width = _price(residuals, start, count, low, histogram)
    best_base, best_width = low, width
    # A few residuals far below the others must not lift all of those: try without them.
    for _ in range(3):
        if width < 3 or width > WIDEST:
            break
        n_below = 0
        for b in range(width - 1):
            n_below += histogram[b]
        if n_below == 0 or n_below > count // 16 + 1:
            break
        floor = np.int64(1) << (width - 2)
        base = high
        for i in range(start, start + count):
            if residuals[i] - low >= floor:
                base = min(base, residuals[i])
        bits, width = _price(residuals, start, count, base, histogram)
        if bits >= best:
            break
        low, best, best_base, best_width = base, bits, base, width
    # Mostly one value, and others on both sides of it: that value as the base, the others as exceptions.
    usual, votes = residuals[start], 0
    n_zeros = 0
    for i in range(count):
        residual = residuals[np.uint64(start + i)]
        if votes == 0:
            usual = residual
        votes += 1 if residual == usual else -1
        n_zeros += residual == 0
    if 4 * n_zeros >= count:
        usual = np.int64(0)
    n_usual = 0
    for i in range(count):
        n_usual += residuals[np.uint64(start + i)] == usual
    if usual != best_base and 8 * n_usual >= count:
        bits, width = _price(residuals, start, count, usual, histogram)
        if bits < best:
            best, best_base, best_width = bits, usual, width
    return best, best_base, best_width


@device
def _put_group(residuals, start, count, base, width, out, position, scratch):
    """Write one group; returns the position after it."""
    distances, exceptions, flags = scratch[DISTANCES], scratch[EXCEPTIONS], scratch[FLAGS]
    n_exceptions, most = np.int64(0), np.int64(0)
    for i in range(count):
        distance = residuals[np.uint64(start + i)] - base
        outside = width < 64 and distance >> min(width, WIDEST) != 0
        exceptions[np.uint64(n_exceptions)] = zigzag(distance)
        flags[np.uint64(i)] = outside
        distances[np.uint64(i)] = 0 if outside else distance
        if outside:
            n_exceptions += 1
            most |= zigzag(distance)
    out[position] = width | (_HAS_EXCEPTIONS if n_exceptions > 0 else 0)
    position = put_varint(out, position + 1, zigzag(base))
    if n_exceptions > 0:
        exception_width = bit_length(most) if most >= 0 else 64
        if exception_width > WIDEST:
            exception_width = 64
        out[position] = n_exceptions
        out[position + 1] = exception_width
        position += 2
        if 8 * n_exceptions > count:
            position = pack(flags, count, np.int64(1), out, position)
        else:
            for i in range(count):
                out[position] = i
                position += flags[i]
        position = pack(exceptions, n_exceptions, exception_width, out, position)
    if width > 0:
        position = pack(distances, count, width, out, position)
    return position


@device
def _divisor(values, n):
    """The greatest common divisor of the differences of values[:n]; 1 if there is none worth having."""
    divisor = np.int64(0)
    for i in range(1, n):
        difference = values[i] - values[i - 1]
        if difference == 0:
            continue
        if difference == _MIN_INT64:
            return np.int64(1)
        difference = abs(difference)
        if divisor == 0:
            divisor = difference
        while difference % divisor != 0:
            divisor, difference = difference % divisor, divisor
        if divisor == 1:
            break
    return max(divisor, 1)


@device
def _residuals(steps, n, transform, out):
    """Fill `out` with the residuals of steps[:n], of which the first is zero; returns how many there are."""
    if transform == RAW:
        for i in range(1, n):
            out[i - 1] = steps[i]
        return n - 1
    if transform == DELTA:
        for i in range(1, n):
            out[i - 1] = steps[i] - steps[i - 1]
        return n - 1
    for i in range(2, n):
        out[i - 2] = steps[i] - 2 * steps[i - 1] + steps[i - 2]
    return n - 2


@device
def put_vector(values, n, exponent, out, position, scratch):
    """Write values[:n], n >= 1; returns the position after them.

    `exponent` goes to the tag for the reader; AS_BITS has the first value written as eight bytes.
    scratch: int64 (N_SCRATCH, at least n and 2 * GROUP).
    """
    tag_at = position
    steps, residuals, plans, histogram = scratch[STEPS], scratch[RESIDUALS], scratch[PLANS], scratch[HISTOGRAM]
    if exponent & AS_BITS == AS_BITS:
        position = store64(out, position + 1, values[0])
    else:
        position = put_varint(out, position + 1, zigzag(values[0]))
    different = np.int64(0)
    for i in range(n):
        different |= values[i] ^ values[0]
    if different == 0:
        out[tag_at] = exponent << EXPONENT_SHIFT | CONSTANT
        return position
    divisor = _divisor(values, n)
    if divisor == 1:
        for i in range(n):
            steps[i] = values[i] - values[0]
    else:
        for i in range(n):
            steps[i] = (values[i] - values[0]) // divisor
        position = put_varint(out, position, divisor)
    best, chosen = np.int64(_NO_FIT), np.int64(RAW)
    for transform in range(RAW, DOUBLE_DELTA + 1):
        if transform == DOUBLE_DELTA and n < 4:
            continue
        count = _residuals(steps, n, transform, residuals)
        bits = 24 if transform == DOUBLE_DELTA else 0
        for group in range((count + GROUP - 1) // GROUP):
            start = group * GROUP
            cost, base, width = _plan_group(residuals, start, min(GROUP, count - start), histogram)
            plans[6 * group + 2 * transform - 2] = base
            plans[6 * group + 2 * transform - 1] = width
            bits += cost
            if bits >= best:
                break
        if bits < best:
            best, chosen = bits, transform
    out[tag_at] = exponent << EXPONENT_SHIFT | chosen | (HAS_DIVISOR if divisor != 1 else 0)
    if chosen == DOUBLE_DELTA:
        position = put_varint(out, position, zigzag(steps[1]))
    count = _residuals(steps, n, chosen, residuals)
    for group in range((count + GROUP - 1) // GROUP):
        start = group * GROUP
        base, width = plans[6 * group + 2 * chosen - 2], plans[6 * group + 2 * chosen - 1]
        position = _put_group(residuals, start, min(GROUP, count - start), base, width, out, position, scratch)
    return position


@device
def _get_exceptions(data, position, end, count, out, at):
    """Read a group's exceptions to out[at + their positions]; returns the position after them or -1.

    The fields of the group are not there yet: (position, distance) pairs are kept at the end of `out`.
    """
    n_exceptions = np.int64(data[position])
    width = np.int64(data[position + 1])
    position += 2
    listed = 8 * n_exceptions <= count
    where = position
    position += n_exceptions if listed else (count + 7) >> 3
    if n_exceptions == 0 or (width > WIDEST and width != 64):
        return np.int64(-1)
    if position + packed_size(n_exceptions, width) > end:
        return np.int64(-1)
    mask = (1 << width) - 1 if width < 64 else -1
    bit = position * 8
    if listed:
        for i in range(n_exceptions):
            index = np.int64(data[where + i])
            if index >= count:
                return np.int64(-1)
            out[at + index] = unzigzag((load64(data, bit >> 3) >> (bit & 7)) & mask)
            bit += width
    else:
        found = 0
        for index in range(count):
            if (np.int64(data[where + (index >> 3)]) >> (index & 7)) & 1 != 0:
                if found == n_exceptions:
                    return np.int64(-1)
                out[at + index] = unzigzag((load64(data, bit >> 3) >> (bit & 7)) & mask)
                bit += width
                found += 1
        if found != n_exceptions:
            return np.int64(-1)
    return position + packed_size(n_exceptions, width)


@device
def get_vector(data, position, end, n, out):
    """Read n >= 1 values to out[:n]; returns (position after them or -1, exponent of the tag)."""
    if position >= end:
        return np.int64(-1), np.int64(0)
    tag = np.int64(data[position])
    transform, exponent = tag & 3, tag >> EXPONENT_SHIFT
    if exponent & AS_BITS == AS_BITS:
        first = load64(data, position + 1)
        position += 9
        if position > end:
            return np.int64(-1), exponent
    else:
        first, position = get_varint(data, position + 1, end)
        if position < 0:
            return position, exponent
        first = unzigzag(first)
    if transform == CONSTANT:
        for i in range(n):
            out[np.uint64(i)] = first
        return position, exponent
    divisor, step = np.int64(1), np.int64(0)
    if tag & HAS_DIVISOR != 0:
        divisor, position = get_varint(data, position, end)
    if transform == DOUBLE_DELTA and position >= 0:
        step, position = get_varint(data, position, end)
    if position < 0:
        return position, exponent
    out[0] = first
    last, step, at = first, unzigzag(step) * divisor, 1
    if transform == DOUBLE_DELTA:
        if n < 2:
            return np.int64(-1), exponent
        last, at = first + step, 2
        out[1] = last
    while at < n:
        count = min(GROUP, n - at)
        position, base = _get_group(data, position, end, count, out, at)
        if position < 0:
            return position, exponent
        if transform == RAW:
            for i in range(count):
                out[np.uint64(at + i)] = first + (out[np.uint64(at + i)] + base) * divisor
        elif transform == DELTA:
            for i in range(count):
                last += (out[np.uint64(at + i)] + base) * divisor
                out[np.uint64(at + i)] = last
        else:
            for i in range(count):
                step += (out[np.uint64(at + i)] + base) * divisor
                last += step
                out[np.uint64(at + i)] = last
        at += count
    return position, exponent


@device
def _get_group(data, position, end, count, out, at):
    """Read one group's distances to out[at : at + count]; returns (position after it or -1, base)."""
    if position >= end:
        return np.int64(-1), np.int64(0)
    head = np.int64(data[position])
    width = head & 127
    base, position = get_varint(data, position + 1, end)
    base = unzigzag(base)
    if position < 0 or (width > WIDEST and width != 64):
        return np.int64(-1), base
    exceptions_at = position
    if head & _HAS_EXCEPTIONS != 0:
        if position + 2 > end:
            return np.int64(-1), base
        n_exceptions = np.int64(data[position])
        position += 2 + (n_exceptions if 8 * n_exceptions <= count else (count + 7) >> 3)
        position += packed_size(n_exceptions, np.int64(data[exceptions_at + 1]))
    if position + packed_size(count, width) > end:
        return np.int64(-1), base
    if width == 0:
        for i in range(count):
            out[np.uint64(at + i)] = 0
    else:
        unpack(data, position, count, width, out, at)
    if head & _HAS_EXCEPTIONS != 0 and _get_exceptions(data, exceptions_at, end, count, out, at) < 0:
        return np.int64(-1), base
    return position + packed_size(count, width), base


@device
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


@device
def scale(bits, floats, start, n, integers, specials):
    """Write floats[start : start + n] to `integers`, over one power of ten if that keeps their bits.

    Returns (exponent, n_specials). The few values that are no such integer are listed in `specials` by position and
    take their predecessor's integer; if they are more than a few, the exponent is AS_BITS, the integers the bits.
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


@device
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
