"""Samples as Prometheus' chunks, in the messages of streamed remote read.

    Chunk { int64 min_time_ms = 1; int64 max_time_ms = 2; enum type = 3; bytes data = 4; }

A chunk of floats: the number of samples, big-endian in two bytes; the first timestamp as a varint, and the bits of
the first value; then of each sample how far its distance to the one before differs from the distance before that,
and how its value differs. Timestamps are in ms. Source: `xor.go` of Prometheus' `tsdb/chunkenc`.
"""

from __future__ import annotations

import numpy as np

from common.kernels.bits import NO_WINDOW, fits, put_bits, put_xor
from common.kernels.histogram_chunk import (
    BYTES_PER_BYTE,
    HISTOGRAM_BYTES,
    put_histograms,
    room_for_histograms,
)
from common.kernels.jit import device, kernel
from common.kernels.record import put_uvarint, zigzag

MAX_SAMPLES = 120
"""In one chunk; what Prometheus itself aims at."""
SAMPLE_BYTES = 19
"""Of a float at most: 4 and 64 bits for its timestamp, 13 and 64 for its value."""
CHUNK_BYTES = 64
"""Of a chunk with its message, besides its samples, at most."""
_XOR, _HISTOGRAM, _FLOAT_HISTOGRAM = 1, 2, 3
_0 = np.uint64(0)


@device
def _put_step(out, at, change):
    """Append by how much the distance between timestamps has changed."""
    prefix, prefix_width, width = np.uint64(0b1111), 4, 64
    if change == 0:
        prefix, prefix_width, width = _0, 1, 0
    elif fits(change, 14):
        prefix, prefix_width, width = np.uint64(0b10), 2, 14
    elif fits(change, 17):
        prefix, prefix_width, width = np.uint64(0b110), 3, 17
    elif fits(change, 20):
        prefix, width = np.uint64(0b1110), 20
    return put_bits(out, put_bits(out, at, prefix, prefix_width), np.uint64(change), width)


@device
def _put_floats(timestamps, value_bits, first, last, out):
    """Encode the samples [first, last). Returns the number of bits."""
    at = put_bits(out, 0, np.uint64(last - first), 16)
    at = 8 * put_uvarint(out, at >> 3, zigzag(timestamps[first]))
    at = put_bits(out, at, value_bits[first], 64)
    leading, trailing = NO_WINDOW, 0
    step = np.int64(0)
    for k in range(first + 1, last):
        old_step, step = step, timestamps[k] - timestamps[k - 1]
        if k == first + 1:
            at = 8 * put_uvarint(out, at >> 3, np.uint64(step))
        else:
            at = _put_step(out, at, step - old_step)
        at, leading, trailing = put_xor(out, at, value_bits[k], value_bits[k - 1], leading, trailing)
    return at


@device
def _put_chunk(chunk, size, min_time, max_time, encoding, head, out, at):
    """Append a Chunk as field 2 of a ChunkedSeries. Returns the position behind it."""
    head[0] = 0x08
    n = put_uvarint(head, 1, np.uint64(min_time))
    head[n] = 0x10
    n = put_uvarint(head, n + 1, np.uint64(max_time))
    head[n] = 0x18
    head[n + 1] = encoding
    head[n + 2] = 0x22
    n = put_uvarint(head, n + 3, np.uint64(size))
    out[at] = 0x12
    at = put_uvarint(out, at + 1, np.uint64(n + size))
    for i in range(n):
        out[at + i] = head[i]
    at += n
    for i in range(size):
        out[at + i] = chunk[i]
    return at + size


@kernel(
    "int64(int64[::1], int64[::1], int64[::1], int64[::1], uint64[::1], int64[::1], uint8[::1], uint8[::1],"
    " int64[::1])"
)
def write_chunks(firsts, lasts, rows, timestamps, value_bits, offsets, data, out, ends):
    """Write the samples of each piece, [firsts[i], lasts[i]), as one chunk, or as several if they are histograms.

    rows: int64 (n,); which histogram the first sample of a piece is, -1 for a piece of floats.
    offsets, data: the histograms, as `docs/format/histogram.md` says. out: uint8, with room for each sample, for
    each chunk and for each histogram: see the constants.
    ends: int64 (n,), written: where the messages of each piece end. Returns the first piece with something that is
    no histogram, or -1.
    """
    largest = np.int64(0)
    longest = np.int64(MAX_SAMPLES * SAMPLE_BYTES)
    for i in range(len(rows)):
        if rows[i] >= 0:
            n = lasts[i] - firsts[i]
            for row in range(rows[i], rows[i] + n):
                largest = max(largest, offsets[row + 1] - offsets[row])
            size = offsets[rows[i] + n] - offsets[rows[i]]
            longest = max(longest, n * HISTOGRAM_BYTES + BYTES_PER_BYTE * size)
    room = room_for_histograms(largest)
    chunk = np.empty(longest + CHUNK_BYTES, np.uint8)
    head = np.empty(CHUNK_BYTES, np.uint8)
    at = np.int64(0)
    for i in range(len(firsts)):
        first, last = firsts[i], lasts[i]
        if rows[i] < 0:
            size = (_put_floats(timestamps, value_bits, first, last, chunk) + 7) >> 3
            at = _put_chunk(chunk, size, timestamps[first], timestamps[last - 1], _XOR, head, out, at)
        is_reset = False
        while rows[i] >= 0 and first < last:
            row = rows[i] + first - firsts[i]
            behind, bits, anew = put_histograms(data, offsets, row, timestamps, first, last, is_reset, room, chunk)
            if behind == first:
                return np.int64(i)
            encoding = _FLOAT_HISTOGRAM if data[offsets[row]] & 4 else _HISTOGRAM
            size = (bits + 7) >> 3
            at = _put_chunk(chunk, size, timestamps[first], timestamps[behind - 1], encoding, head, out, at)
            first, is_reset = behind, anew
        ends[i] = at
    return np.int64(-1)
