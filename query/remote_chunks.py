"""Remote read as a stream: Prometheus' chunks in frames, of type STREAMED_XOR_CHUNKS.

An answer is frames and nothing else: the size as a uvarint, CRC-32C of the message, big-endian, and the message,
`ChunkedReadResponse { ChunkedSeries chunked_series = 1; int64 query_index = 2; }` with
`ChunkedSeries { Label labels = 1; Chunk chunks = 2; }`, of one series. A series is in one frame unless its chunks
take more than MAX_FRAME_BYTES. Source: Prometheus' `storage/remote/chunked.go` and `codec.go`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from common.errors import CorruptError
from common.histograms import EncodedHistograms
from common.kernels.crc32c import crc32c
from common.kernels.histogram_chunk import BYTES_PER_BYTE, HISTOGRAM_BYTES
from common.kernels.jit import for_kernels
from common.kernels.prometheus_chunk import CHUNK_BYTES, MAX_SAMPLES, SAMPLE_BYTES, write_chunks
from common.labels import LabelTable, uvarint
from common.protobuf import delimited
from common.store import Selection
from query.engine.labeling import order

MEDIA_TYPE = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse"
MAX_FRAME_BYTES = 1 << 20
"""Of the chunks in one frame; it is larger only if a single histogram is."""
PART_BYTES = 64 << 10
"""Chunks of a series are put into frames in parts of up to this size, so that frames get nearly full."""
PIECE_BYTES = 64 << 10
"""Histograms that are encoded as one piece, which is not divided among frames, have at most so many bytes."""
PORTION_BYTES = 4 << 20
"""What is encoded at a time takes no more than about this much."""
_ROWS = 4096

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class _Pieces:
    """Samples that become a chunk each, or several if they are histograms; in the order in which they are sent.

    series: int64 (n,), by rank. firsts, lasts: int64 (n,), half-open ranges of samples.
    histograms: int64 (n,), the first of a piece of histograms, -1 for floats. sizes: int64 (n,), bytes at most.
    """

    series: Integers
    firsts: Integers
    lasts: Integers
    histograms: Integers
    sizes: Integers


def upper_bound(selection: Selection) -> int:
    """Bytes that the frames of a selection take at most, without their labels."""
    return int(_pieces(selection, order(selection.labels)).sizes.sum())


def frames(selection: Selection, query_index: int) -> Iterator[bytes]:
    """The frames of one query's series, in the order of their labels; each item is some whole frames.

    Raises:
        CorruptError: what should be a histogram is none.
    """
    rows = order(selection.labels)
    pieces = _pieces(selection, rows)
    index = b"\x10" + uvarint(query_index) if query_index else b""
    labels = label_fields(selection.labels, rows)
    ready = bytearray()
    fields = next(labels, b"")
    chunks = bytearray()
    series = 0
    for rank, content in _encoded(selection, pieces):
        if rank != series or len(chunks) + len(content) > MAX_FRAME_BYTES:
            ready += _frame(fields + chunks, index)
            chunks.clear()
            if rank != series:
                series, fields = rank, next(labels)
            if len(ready) >= MAX_FRAME_BYTES:
                yield bytes(ready)
                ready.clear()
        chunks += content
    if chunks:
        ready += _frame(fields + chunks, index)
    if ready:
        yield bytes(ready)


def _frame(series: bytes | bytearray, index: bytes) -> bytes:
    message = delimited(1, bytes(series)) + index
    checksum = crc32c(np.frombuffer(bytearray(message), dtype=np.uint8))
    return uvarint(len(message)) + int(checksum).to_bytes(4, "big") + message


def _encoded(selection: Selection, pieces: _Pieces) -> Iterator[tuple[int, memoryview]]:
    """(rank of the series, chunks): those of a series that are encoded at a time, in parts."""
    for first, last in _portions(pieces.sizes):
        content, ends = _encode(selection, pieces, first, last)
        series = pieces.series[first:last]
        begins = [0, *(np.flatnonzero(series[1:] != series[:-1]) + 1).tolist(), last - first]
        starts = np.concatenate((np.zeros(1, dtype=np.int64), ends))
        for begin, end in pairwise(begins):
            at = begin
            while at < end:
                fitting = np.searchsorted(starts, starts[at] + PART_BYTES, side="right") - 1
                behind = min(end, max(int(fitting), at + 1))
                yield int(series[at]), content[starts[at] : starts[behind]]
                at = behind


def _encode(selection: Selection, pieces: _Pieces, first: int, last: int) -> tuple[memoryview, Integers]:
    """The chunks of the pieces [first, last), and where those of each end."""
    histograms = selection.histograms or _NO_HISTOGRAMS
    out = np.empty(int(pieces.sizes[first:last].sum()), dtype=np.uint8)
    ends = np.empty(last - first, dtype=np.int64)
    wrong = write_chunks(
        pieces.firsts[first:last],
        pieces.lasts[first:last],
        pieces.histograms[first:last],
        for_kernels(selection.timestamps),
        for_kernels(selection.values).view(np.uint64),
        for_kernels(histograms.offsets),
        for_kernels(histograms.data),
        out,
        ends,
    )
    if wrong >= 0:
        at = int(pieces.firsts[first + wrong])
        raise CorruptError(
            f"a histogram at {int(selection.timestamps[at])} ms or soon after it is not a histogram"
        )
    return out.data, ends


def _portions(sizes: Integers) -> Iterator[tuple[int, int]]:
    """Ranges of pieces that take about PORTION_BYTES."""
    total = np.cumsum(sizes)
    first, before = 0, 0
    while first < len(sizes):
        last = max(int(np.searchsorted(total, before + PORTION_BYTES, side="right")), first + 1)
        yield first, last
        first, before = last, int(total[last - 1])


def _pieces(selection: Selection, rows: Integers) -> _Pieces:
    runs = _runs(selection)
    # The runs of each series, the series in the order of `rows`.
    bounds = np.searchsorted(runs, selection.offsets)
    series, places = _ranges(bounds[:-1][rows], np.diff(bounds)[rows])
    firsts = runs[places]
    lengths = np.diff(runs, append=len(selection.timestamps))[places]
    numbers, most = _histograms_of(selection.histograms, firsts, lengths)
    n_pieces = -(-lengths // most)
    which, within = _ranges(np.zeros(len(firsts), dtype=np.int64), n_pieces)
    shift = within * most[which]
    first = firsts[which] + shift
    last = np.minimum(first + most[which], firsts[which] + lengths[which])
    histograms = np.where(numbers[which] >= 0, numbers[which] + shift, -1)
    sizes = CHUNK_BYTES + SAMPLE_BYTES * (last - first)
    if selection.histograms is not None:
        at = np.flatnonzero(histograms >= 0)
        n = last[at] - first[at]
        offsets = selection.histograms.offsets
        size = offsets[histograms[at] + n] - offsets[histograms[at]]
        sizes[at] = (CHUNK_BYTES + HISTOGRAM_BYTES) * n + BYTES_PER_BYTE * size
    return _Pieces(series[which], first, last, histograms, sizes)


def _runs(selection: Selection) -> Integers:
    """Where the samples of a series begin, and where within it floats follow histograms or these floats."""
    if selection.histograms is None:
        return selection.offsets[:-1]
    is_histogram = np.zeros(len(selection.timestamps), dtype=np.bool_)
    is_histogram[selection.histograms.positions] = True
    changes = np.flatnonzero(is_histogram[1:] != is_histogram[:-1]) + 1
    return np.union1d(selection.offsets[:-1], changes)


def _histograms_of(
    histograms: EncodedHistograms | None, firsts: Integers, lengths: Integers
) -> tuple[Integers, Integers]:
    """Of runs of samples: the number of the first among the histograms, or -1, and how many make up a piece."""
    numbers = np.full(len(firsts), -1, dtype=np.int64)
    most = np.full(len(firsts), MAX_SAMPLES, dtype=np.int64)
    if histograms is not None:
        at = np.searchsorted(histograms.positions, firsts)
        at = np.minimum(at, len(histograms) - 1)
        held = np.flatnonzero(histograms.positions[at] == firsts)
        numbers[held] = at[held]
        bounds = np.stack((at[held], at[held] + lengths[held]), axis=1).reshape(-1)
        sizes = np.append(np.diff(histograms.offsets), 0)
        largest = np.maximum.reduceat(sizes, bounds)[::2] if len(held) else np.zeros(0, dtype=np.int64)
        most[held] = np.clip(PIECE_BYTES // np.maximum(largest, 1), 1, MAX_SAMPLES)
    return numbers, most


def _ranges(starts: Integers, counts: Integers) -> tuple[Integers, Integers]:
    """All numbers of the ranges from `starts` on, and which range each is of."""
    which = np.repeat(np.arange(len(counts)), counts)
    before = np.cumsum(counts) - counts
    return which, starts[which] + np.arange(len(which)) - before[which]


def label_fields(table: LabelTable, rows: Integers) -> Iterator[bytes]:
    """The labels of these series, `Label { string name = 1; string value = 2; }`, as fields 1 of a message."""
    for first in range(0, len(rows), _ROWS):
        part = table.take(rows[first : first + _ROWS])
        columns: list[list[bytes]] = [[b""] * len(part)]
        # Each text is encoded once for all series of the part.
        for name, codes in zip(part.names, part.codes, strict=True):
            distinct, which = np.unique(codes, return_inverse=True)
            key = delimited(1, name.encode())
            fields = [
                delimited(1, key + delimited(2, table.pool[code].encode())) if code else b""
                for code in distinct.tolist()
            ]
            columns.append([fields[i] for i in which.tolist()])
        yield from map(b"".join, zip(*columns, strict=True))


_NO_HISTOGRAMS = EncodedHistograms(
    np.zeros(0, dtype=np.int64), np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.uint8)
)
