"""Chunks of series, packed into blocks (`docs/format/chunk.md`); the work is done in `common/kernels/`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import CorruptError
from common.kernels import block as kernels
from common.kernels.bitpack import PADDING

TARGET_BYTES = 32 * 1024
MAX_CHUNK_SAMPLES = kernels.MAX_CHUNK_SAMPLES


@dataclass(frozen=True, slots=True, eq=False)
class EncodedBlocks:
    """Blocks, one after another, and what an index of them needs.

    starts: int64 (n_blocks + 1,), block i is data[starts[i] : starts[i + 1]].
    first_rows: int64 (n_blocks + 1,), block i holds the rows [first_rows[i], first_rows[i + 1]).
    min_times, max_times: int64 (n_blocks,), Unix ms, of the block's first and last sample.
    """

    data: bytes
    starts: NDArray[np.int64]
    first_rows: NDArray[np.int64]
    min_times: NDArray[np.int64]
    max_times: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class BlockRows:
    """One line for each chunk of some blocks, in their order; a row of more than MAX_CHUNK_SAMPLES has several.

    block: int32, index of the block. sno: uint32. n_samples: int32.
    min_time, max_time: int64, Unix ms, of the chunk's first and last sample.
    """

    block: NDArray[np.int32]
    sno: NDArray[np.uint32]
    n_samples: NDArray[np.int32]
    min_time: NDArray[np.int64]
    max_time: NDArray[np.int64]


def encode_blocks(
    snos: NDArray[np.uint32],
    offsets: NDArray[np.int64],
    timestamps: NDArray[np.int64],
    value_bits: NDArray[np.uint64],
    target_bytes: int = TARGET_BYTES,
) -> EncodedBlocks:
    """Compress one row per series into blocks of about `target_bytes`; the same input gives the same bytes.

    snos: uint32 (n_rows,), in the order in which they are to lie.
    offsets: int64 (n_rows + 1,) into `timestamps` (int64, Unix ms, strictly ascending in a row) and `value_bits`
    (uint64, the bits of the float64 values). Raises ValueError for an empty row or one of more than 2^28 samples.
    """
    n_rows = len(snos)
    lengths = np.diff(offsets)
    if len(offsets) != n_rows + 1 or len(timestamps) != len(value_bits) or (n_rows and offsets[0] < 0):
        raise ValueError("snos, offsets, timestamps and value_bits do not fit one another")
    if n_rows and (int(lengths.min()) < 1 or int(offsets[-1]) > len(timestamps)):
        raise ValueError("a row without samples, or offsets beyond the samples")
    longest = int(lengths.max(initial=0))
    if longest > kernels.MAX_CHUNKS * MAX_CHUNK_SAMPLES:
        raise ValueError(f"a row of {longest} samples is longer than a block may be")
    n_chunks = int(((lengths + MAX_CHUNK_SAMPLES - 1) // MAX_CHUNK_SAMPLES).sum())
    n_samples = int(lengths.sum())
    # The worst case: a vector takes at most 10 bytes a value and 64; a line of the header 80.
    room = target_bytes + 10 * longest + 64 * (longest // MAX_CHUNK_SAMPLES + 2)
    out = np.empty(20 * n_samples + 208 * n_chunks + 320 * n_rows, np.uint8)
    starts, first_rows = np.empty(n_rows + 1, np.int64), np.empty(n_rows + 1, np.int64)
    min_times, max_times = np.empty(n_rows, np.int64), np.empty(n_rows, np.int64)
    bits = np.ascontiguousarray(value_bits, np.uint64)
    n_blocks = kernels.encode(
        np.ascontiguousarray(snos, np.uint32),
        np.ascontiguousarray(offsets, np.int64),
        np.ascontiguousarray(timestamps, np.int64),
        bits.view(np.int64),
        bits.view(np.float64),
        target_bytes,
        room,
        out,
        starts,
        first_rows,
        min_times,
        max_times,
    )
    return EncodedBlocks(
        out[: starts[n_blocks]].tobytes(),
        starts[: n_blocks + 1].copy(),
        first_rows[: n_blocks + 1].copy(),
        min_times[:n_blocks].copy(),
        max_times[:n_blocks].copy(),
    )


@dataclass(frozen=True, slots=True, eq=False)
class JoinedBlocks:
    """Blocks one after another, as kernels take them, for whoever reads them more than once."""

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]


def join_blocks(blocks: Sequence[bytes]) -> JoinedBlocks:
    """Copy blocks into one array."""
    return JoinedBlocks(*_join(blocks))


def _join(blocks: Sequence[bytes] | JoinedBlocks) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    if isinstance(blocks, JoinedBlocks):
        return blocks.data, blocks.starts
    starts = np.zeros(len(blocks) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, blocks), np.int64, len(blocks)), out=starts[1:])
    # From a bytearray, as the kernels' arrays are writable ones.
    return np.frombuffer(bytearray().join((*blocks, bytes(PADDING))), np.uint8), starts


def _check(code: int) -> None:
    if code == kernels.CORRUPT:
        raise CorruptError("a block of chunks does not follow its format")
    if code == kernels.NO_ROOM:
        raise ValueError("the output has no room for the samples of a row")


def block_rows(blocks: Sequence[bytes]) -> BlockRows:
    """What the headers of the blocks say of their chunks; no chunk is decoded. Raises CorruptError."""
    data, starts = _join(blocks)
    n_rows = sum(int.from_bytes(block[1:3], "little") for block in blocks)
    found = BlockRows(
        np.empty(n_rows, np.int32),
        np.empty(n_rows, np.uint32),
        np.empty(n_rows, np.int32),
        np.empty(n_rows, np.int64),
        np.empty(n_rows, np.int64),
    )
    _check(kernels.rows(data, starts, found.block, found.sno, found.n_samples, found.min_time, found.max_time))
    return found


def count_samples(
    blocks: Sequence[bytes] | JoinedBlocks,
    row_of_sno: NDArray[np.int32],
    min_time: int,
    max_time: int,
    counts: NDArray[np.int64],
) -> None:
    """Add to counts[row] the samples of its chunks that touch the closed range [min_time, max_time], Unix ms.

    row_of_sno: int32 (n_snos,), the row of each wanted series, -1 for others; a number beyond it is not wanted.
    counts: int64 (n_rows,). Whole chunks are counted, from the headers: an upper bound of what `decode_samples`
    appends. Raises CorruptError.
    """
    data, starts = _join(blocks)
    _check(kernels.count(data, starts, row_of_sno, min_time, max_time, counts))


def decode_samples(
    blocks: Sequence[bytes] | JoinedBlocks,
    row_of_sno: NDArray[np.int32],
    min_time: int,
    max_time: int,
    cursor: NDArray[np.int64],
    timestamps: NDArray[np.int64],
    value_bits: NDArray[np.uint64],
) -> None:
    """Append the samples of the wanted series in the closed range [min_time, max_time] at cursor[row].

    The cursor (int64 (n_rows,)) moves on behind what was written to `timestamps` (int64) and `value_bits`
    (uint64); blocks are taken in the order given. Raises CorruptError, and ValueError where the outputs end
    too early.
    """
    data, starts = _join(blocks)
    if len(timestamps) != len(value_bits):
        raise ValueError("timestamps and value_bits differ in length")
    bits, floats = value_bits.view(np.int64), value_bits.view(np.float64)
    _check(kernels.decode(data, starts, row_of_sno, min_time, max_time, cursor, timestamps, bits, floats))


def finish_rows(
    row_starts: NDArray[np.int64],
    cursor: NDArray[np.int64],
    timestamps: NDArray[np.int64],
    value_bits: NDArray[np.uint64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
    """Make rows filled at [row_starts[i], cursor[i]) from several sources into rows that ascend strictly in time.

    row_starts: int64 (n_rows + 1,), ascending; cursor: int64 (n_rows,). Of samples with one timestamp the one that
    was written first stays. Returns (offsets int64 (n_rows + 1,), timestamps, value_bits); the latter two are the
    front of the arrays given, whose contents are lost.
    """
    n_rows = len(cursor)
    if n_rows and ((cursor < row_starts[:-1]).any() or (cursor > row_starts[1:]).any()):
        raise ValueError("a cursor lies outside its row")
    offsets = np.empty(n_rows + 1, np.int64)
    longest = int((cursor - row_starts[:-1]).max(initial=0))
    total = kernels.finish(row_starts, cursor, timestamps, value_bits.view(np.int64), offsets, longest)
    return offsets, timestamps[:total], value_bits[:total]
