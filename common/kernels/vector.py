"""The codec of one vector of integers, of which all else is made (`docs/format/chunk.md`).

A vector is a first value, a divisor, and residuals: of the values, of their differences or of the differences'
differences, in groups. A group is a base, fields of one width, and a list of the few that do not fit.

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
    unpack_deltas,
    unzigzag,
    varint_size,
    zigzag,
)
from common.kernels.jit import device, inlined

GROUP = 256  # residuals in a group; a position in it takes one byte
# The tag of a vector: transform, divisor, exponent.
CONSTANT, RAW, DELTA, DOUBLE_DELTA = 0, 1, 2, 3
HAS_DIVISOR = 4
EXPONENT_SHIFT = 3
AS_BITS = 15  # the exponent of values stored as their bits: the first value takes eight bytes
# Rows of the encoder's scratch memory.
STEPS, RESIDUALS, PLANS, HISTOGRAM, DISTANCES, EXCEPTIONS, FLAGS = 0, 1, 2, 3, 4, 5, 6
N_SCRATCH = 7
_HAS_EXCEPTIONS = 128
_NO_FIT = 1 << 62
_MIN_INT64 = -(1 << 63)
# Below this many residuals a list of exceptions hardly ever pays.
_FEWEST_FOR_EXCEPTIONS = 8
_BINS = 132  # 0..65 by bit length from the base upwards, 66..131 downwards


@inlined
def _head_bits(base):
    return 8 + 8 * varint_size(zigzag(base))


@inlined
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
    overhead = _head_bits(base)
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
def _without_outliers(residuals, start, count, low, width, histogram):
    """The lowest residual but for a few far below the others, which must not lift all of those; `low` if none is.

    width, histogram: of the group above `low`.
    """
    n_below = 0
    for b in range(min(width - 1, WIDEST)):
        n_below += histogram[b]
    if n_below == 0 or n_below > count // 16 + 1:
        return low
    floor = np.int64(1) << (width - 2)
    base = low
    for i in range(count):
        residual = residuals[np.uint64(start + i)]
        if residual - low >= floor and (base == low or residual < base):
            base = residual
    return base


@device
def _usual(residuals, start, count, low):
    """The value of most residuals, or zero where many are; `low` if no value is frequent."""
    usual, votes, n_zeros = residuals[start], 0, 0
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
    return usual if 8 * n_usual >= count else low


@device
def _plan_group(residuals, start, count, histogram):
    """(bits, base, width) for the group residuals[start : start + count]."""
    low = high = residuals[start]
    for i in range(count):
        low = min(low, residuals[np.uint64(start + i)])
        high = max(high, residuals[np.uint64(start + i)])
    span = high - low
    if span == 0:
        return _head_bits(low), low, np.int64(0)
    if count < _FEWEST_FOR_EXCEPTIONS:
        width = bit_length(span) if span > 0 else 64
        if width > WIDEST:
            width = 64
        return _head_bits(low) + count * width, low, width
    best, best_base, best_width = _NO_FIT, low, np.int64(0)
    base, last = low, False
    for attempt in range(5):
        bits, width = _price(residuals, start, count, base, histogram)
        tried = base
        if bits < best:
            best, best_base, best_width = bits, base, width
            if attempt < 3 and 3 <= width <= WIDEST:
                base = _without_outliers(residuals, start, count, base, width, histogram)
        if last:
            break
        if base == tried:
            # Mostly one value, and others on both sides of it: those are the exceptions.
            base, last = _usual(residuals, start, count, best_base), True
            if base == best_base:
                break
    return best, best_base, best_width


@inlined
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
    """The greatest common divisor of the distances from values[0] in values[:n]; 1 if it is not worth having.

    Of these and not of the steps: a sum of steps may go around 2^64, and is no multiple then.
    """
    divisor = np.int64(0)
    for i in range(1, n):
        distance = values[np.uint64(i)] - values[0]
        if distance == _MIN_INT64:
            return np.int64(1)
        distance = abs(distance)
        if divisor == 0:
            divisor = distance
        elif distance != 0:
            while distance % divisor != 0:
                divisor, distance = distance % divisor, divisor
        if divisor == 1:
            break
    return max(divisor, np.int64(1))


@device
def _residuals(steps, n, transform, out):
    """Fill `out` with the residuals of steps[:n], of which the first is zero; returns how many there are."""
    if transform == RAW:
        for i in range(n - 1):
            out[np.uint64(i)] = steps[np.uint64(i + 1)]
        return n - 1
    if transform == DELTA:
        for i in range(n - 1):
            out[np.uint64(i)] = steps[np.uint64(i + 1)] - steps[np.uint64(i)]
        return n - 1
    for i in range(n - 2):
        out[np.uint64(i)] = steps[np.uint64(i + 2)] - 2 * steps[np.uint64(i + 1)] + steps[np.uint64(i)]
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


@inlined
def _get_exceptions(data, position, end, count, out, at):
    """Read a group's exceptions over its fields at out[at : at + count]; returns the position after them or -1."""
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


@inlined
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
        if transform == DELTA and position < end and data[position] <= WIDEST:
            # The usual case, a counter without exceptions: in one go.
            width = np.int64(data[position])
            base, position = get_varint(data, position + 1, end)
            if position < 0 or position + packed_size(count, width) > end:
                return np.int64(-1), exponent
            last = unpack_deltas(data, position, count, width, unzigzag(base), divisor, last, out, at)
            position += packed_size(count, width)
            at += count
            continue
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


@inlined
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
