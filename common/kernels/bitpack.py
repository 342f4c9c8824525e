"""Bits, varints and zigzag for the chunk kernels. All integers are int64; a shift right is arithmetic, so that
what must be logical is masked. Format: `docs/format/chunk.md`.
"""

from __future__ import annotations

import numpy as np

from common.kernels.jit import device, inlined

# A field of this many bits at most lies within the eight bytes that start at its first bit's byte.
WIDEST = 57
# The decoder loads whole words: the buffer must go on for this many bytes after the last block.
PADDING = 16
_LOW_57_BITS = (1 << 57) - 1
_LOW_63_BITS = (1 << 63) - 1


@inlined
def load64(data, position):
    """The eight bytes at `position`, little-endian. Unsigned indices keep it one machine load."""
    at = np.uint64(position)
    return (
        np.int64(data[at])
        | np.int64(data[at + np.uint64(1)]) << 8
        | np.int64(data[at + np.uint64(2)]) << 16
        | np.int64(data[at + np.uint64(3)]) << 24
        | np.int64(data[at + np.uint64(4)]) << 32
        | np.int64(data[at + np.uint64(5)]) << 40
        | np.int64(data[at + np.uint64(6)]) << 48
        | np.int64(data[at + np.uint64(7)]) << 56
    )


@inlined
def store64(out, position, value):
    """Write eight bytes, little-endian; returns the position after them."""
    at = np.uint64(position)
    out[at] = value & 255
    out[at + np.uint64(1)] = (value >> 8) & 255
    out[at + np.uint64(2)] = (value >> 16) & 255
    out[at + np.uint64(3)] = (value >> 24) & 255
    out[at + np.uint64(4)] = (value >> 32) & 255
    out[at + np.uint64(5)] = (value >> 40) & 255
    out[at + np.uint64(6)] = (value >> 48) & 255
    out[at + np.uint64(7)] = (value >> 56) & 255
    return position + 8


@inlined
def bit_length(value):
    """Number of bits of a value >= 0; at most one too many above 2^53, never one too few.

    The exponent of the float nearest to the value says it in two instructions.
    """
    if value == 0:
        return 0
    return (np.float64(value).view(np.int64) >> 52) - 1022


@inlined
def zigzag(value):
    return (value << 1) ^ (value >> 63)


@inlined
def unzigzag(value):
    return ((value >> 1) & _LOW_63_BITS) ^ -(value & 1)


@inlined
def put_varint(out, position, value):
    """Write the 64 bits of `value` as a LEB128 varint; returns the position after it."""
    while value & ~127 != 0:
        out[position] = (value & 127) | 128
        value = (value >> 7) & _LOW_57_BITS
        position += 1
    out[position] = value
    return position + 1


@inlined
def varint_size(value):
    """Bytes of a varint; at most one too many."""
    return max((bit_length(value) + 6) // 7, 1) if value >= 0 else 10


@inlined
def get_varint(data, position, end):
    """(value, position after it); the position is -1 if the varint does not end before `end`."""
    value = np.int64(0)
    for i in range(10):
        if position >= end:
            break
        byte = np.int64(data[position])
        position += 1
        value |= (byte & 127) << (7 * i)
        if byte < 128:
            return value, position
    return value, np.int64(-1)


@inlined
def packed_size(count, width):
    return (count * width + 7) >> 3


@device
def pack(values, count, width, out, position):
    """Write values[:count], none negative and none of more than `width` bits, as fields of `width` bits.

    `width` is WIDEST at most or 64. Returns the position after them; up to eight bytes behind it are overwritten.
    """
    held, n_held = np.int64(0), np.int64(0)
    if width == 64:
        for i in range(count):
            position = store64(out, position, values[np.uint64(i)])
        return position
    for i in range(count):
        held |= values[np.uint64(i)] << n_held
        store64(out, position, held)
        n_held += width
        n_whole = n_held >> 3
        position += n_whole
        # In two steps, as a shift by all 64 bits is none at all.
        held = (
            ((held >> (4 * n_whole)) & ((1 << (64 - 4 * n_whole)) - 1)) >> (4 * n_whole) if n_whole > 0 else held
        )
        n_held &= 7
    return position + (n_held > 0)


@inlined
def unpack(data, position, count, width, out, at):
    """Read `count` fields of `width` bits, WIDEST at most or 64, to out[at : at + count]."""
    mask = (1 << width) - 1 if width < 64 else -1
    bit = position * 8
    for i in range(count):
        out[np.uint64(at + i)] = (load64(data, bit >> 3) >> (bit & 7)) & mask
        bit += width


@inlined
def unpack_deltas(data, position, count, width, base, divisor, last, out, at):
    """Read fields as `unpack` does, and add up (field + base) * divisor on `last`; returns the last sum."""
    mask = (1 << width) - 1
    bit = position * 8
    for i in range(count):
        last += (((load64(data, bit >> 3) >> (bit & 7)) & mask) + base) * divisor
        out[np.uint64(at + i)] = last
        bit += width
    return last
