"""Bits, varints and zigzag for the chunk kernels. All integers are int64; a shift right is arithmetic, so that
what must be logical is masked. Format: `docs/format/chunk.md`.
"""

from __future__ import annotations

import numpy as np

from common.kernels.jit import device

# A field of this many bits at most lies within the eight bytes that start at its first bit's byte.
WIDEST = 57
# The decoder loads whole words: the buffer must go on for this many bytes after the last block.
PADDING = 16
_LOW_57_BITS = (1 << 57) - 1
_LOW_63_BITS = (1 << 63) - 1


@device
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


@device
def store64(out, position, value):
    """Write eight bytes, little-endian; returns the position after them."""
    for i in range(8):
        out[position + i] = (value >> (8 * i)) & 255
    return position + 8


@device
def bit_length(value):
    """Number of bits of a value >= 0; at most one too many above 2^53, never one too few.

    The exponent of the float nearest to the value says it in two instructions.
    """
    if value == 0:
        return 0
    return (np.float64(value).view(np.int64) >> 52) - 1022


@device
def zigzag(value):
    return (value << 1) ^ (value >> 63)


@device
def unzigzag(value):
    return ((value >> 1) & _LOW_63_BITS) ^ -(value & 1)


@device
def put_varint(out, position, value):
    """Write the 64 bits of `value` as a LEB128 varint; returns the position after it."""
    while value & ~127 != 0:
        out[position] = (value & 127) | 128
        value = (value >> 7) & _LOW_57_BITS
        position += 1
    out[position] = value
    return position + 1


@device
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


@device
def packed_size(count, width):
    return (count * width + 7) >> 3


@device
def put_bits(out, position, held, n_held, value, width):
    """Append the low `width` bits of `value` to the bits held back; returns (position, held, n_held).

    `width` is at most WIDEST, and fewer than eight bits are held between calls.
    """
    held |= value << n_held
    n_held += width
    while n_held >= 8:
        out[position] = held & 255
        held = (held >> 8) & ((1 << 56) - 1)
        n_held -= 8
        position += 1
    return position, held, n_held


@device
def unpack(data, position, count, width, out, at):
    """Read `count` fields of `width` bits, WIDEST at most or 64, to out[at : at + count]."""
    mask = (1 << width) - 1 if width < 64 else -1
    bit = position * 8
    for i in range(count):
        out[np.uint64(at + i)] = (load64(data, bit >> 3) >> (bit & 7)) & mask
        bit += width
