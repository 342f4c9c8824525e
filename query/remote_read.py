"""Remote read: Prometheus' `prompb.ReadRequest` to a `ReadResponse` of samples, or to a stream of chunks.

The client says which types of answers it takes; the first of them that there is here is what it gets.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import cramjam
import numpy as np
from fastapi import Response

from common.errors import CallerError
from common.kernels.jit import for_kernels
from common.kernels.remote_read import SAMPLE_BYTES, write_samples
from common.labels import uvarint
from common.protobuf import Malformed, delimited, fields, signed
from common.store import MAX_TIME_MS, MIN_TIME_MS, Matcher, MatchOp, Selection, SeriesStore
from query import remote_chunks
from query.engine.budget import Budget
from query.engine.labeling import order
from query.responses import Answer, TooLargeResponse, respond

PATHS = ("/api/v1/read", "/read")
MAX_REQUEST_BYTES = 1 << 20
"""Of a request, compressed; four times as much decompressed."""
MAX_QUERIES = 1000
"""In one request; Prometheus sends one. Also how many matchers a query may have."""
MAX_TYPES = 16
"""Types of answers that a client may say it takes; there are two."""
_OPERATORS = (MatchOp.EQUAL, MatchOp.NOT_EQUAL, MatchOp.REGEX, MatchOp.NOT_REGEX)
SAMPLES, STREAMED_XOR_CHUNKS = 0, 1
"""Types of answers."""


@dataclass(frozen=True, slots=True)
class ReadQuery:
    """One query of a request; times in ms, closed on both sides."""

    matchers: tuple[Matcher, ...]
    min_time_ms: int
    max_time_ms: int


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """answer_type: SAMPLES or STREAMED_XOR_CHUNKS."""

    queries: tuple[ReadQuery, ...]
    answer_type: int


def parse_request(body: bytes) -> ReadRequest:
    """A request as it was sent (a snappy block).

    Raises:
        CallerError: it is not a ReadRequest, or the client takes no answer of a type that there is here.
    """
    try:
        if _uncompressed_size(body) > 4 * MAX_REQUEST_BYTES:
            raise CallerError(f"the request has more than {4 * MAX_REQUEST_BYTES} bytes decompressed")
        message = bytes(cramjam.snappy.decompress_raw(body))
        queries, accepted = [], []
        for number, wire_type, content in fields(message):
            if number == 1 and isinstance(content, bytes):
                queries.append(_query(content))
            elif number == 2 and wire_type == 0:
                accepted.append(content)
            elif number == 2 and isinstance(content, bytes):
                accepted += _numbers(content)
            if len(queries) > MAX_QUERIES or len(accepted) > MAX_TYPES:
                raise CallerError(
                    f"the request has more than {MAX_QUERIES} queries or {MAX_TYPES} types of answers"
                )
    except (Malformed, UnicodeDecodeError):
        raise CallerError("the body is not a prometheus.ReadRequest") from None
    except cramjam.DecompressionError as error:
        raise CallerError(f"the body is not valid snappy: {error}") from None
    for answer_type in accepted or [SAMPLES]:
        if answer_type in (SAMPLES, STREAMED_XOR_CHUNKS):
            return ReadRequest(tuple(queries), answer_type)
    raise CallerError(f"there are answers of type SAMPLES and STREAMED_XOR_CHUNKS, none of types {accepted[:10]}")


def _numbers(packed: bytes) -> list[int]:
    """Of a packed field of varints."""
    # Each with a tag in front is a field of its own, until the last one ends.
    if len(packed) > 10 * MAX_TYPES:
        raise Malformed
    numbers, at = [], 0
    for end in (i + 1 for i, byte in enumerate(packed) if byte < 128):
        numbers += [n for _, _, n in fields(b"\x08" + packed[at:end]) if isinstance(n, int)]
        at = end
    if at < len(packed):
        raise Malformed
    return numbers


def _uncompressed_size(body: bytes) -> int:
    """What the header of a snappy block claims."""
    return next((n for number, _, n in fields(b"\x08" + body[:5].ljust(5, b"\x00")) if isinstance(n, int)), 0)


def _query(message: bytes) -> ReadQuery:
    times = {1: 0, 2: 0}
    matchers = []
    for number, _, content in fields(message):
        if number in times and isinstance(content, int):
            times[number] = max(MIN_TIME_MS, min(MAX_TIME_MS, signed(content)))
        elif number == 3 and isinstance(content, bytes):
            matchers.append(_matcher(content))
            if len(matchers) > MAX_QUERIES:
                raise CallerError(f"a query has more than {MAX_QUERIES} matchers")
    return ReadQuery(tuple(matchers), times[1], times[2])


def _matcher(message: bytes) -> Matcher:
    kind, texts = 0, {2: b"", 3: b""}
    for number, _, content in fields(message):
        if number == 1 and isinstance(content, int):
            kind = content
        elif number in texts and isinstance(content, bytes):
            texts[number] = content
    if kind >= len(_OPERATORS):
        raise CallerError(f"a matcher has the unknown type {kind}")
    return Matcher(_OPERATORS[kind], texts[2].decode(), texts[3].decode())


def answer(store: SeriesStore, request: ReadRequest, budget: Budget, max_bytes: int) -> Response:
    """The answer to a request; a stream of chunks is encoded while it is sent.

    Raises:
        TooManySamples, TooManySeries, QueryTimeout, QueryCancelled: of all queries together.
        TooLargeResponse: it has more than `max_bytes`, of samples before compression.
        CallerError: a regex is not valid.
    """
    found = [
        budget.select(store, query.matchers, query.min_time_ms, query.max_time_ms) for query in request.queries
    ]
    if request.answer_type == STREAMED_XOR_CHUNKS:

        def chunks() -> Iterator[bytes]:
            for index, selection in enumerate(found):
                yield from remote_chunks.frames(selection, index)

        stream = Answer(chunks, lambda: sum(map(remote_chunks.upper_bound, found)), remote_chunks.MEDIA_TYPE)
        return respond(stream, max_bytes, "", budget.check)
    results, size = [], 0
    for selection in found:
        budget.check()
        series = []
        for one in time_series(selection):
            series.append(one)
            size += len(one)
            if size > max_bytes:
                raise TooLargeResponse(max_bytes)
        results.append(delimited(1, b"".join(series)))
    body = bytes(cramjam.snappy.compress_raw(b"".join(results)))
    return Response(body, headers={"Content-Encoding": "snappy"}, media_type="application/x-protobuf")


def time_series(selection: Selection) -> Iterator[bytes]:
    """TimeSeries messages in the order of their labels, each as field 1: of a QueryResult, or a WriteRequest."""
    offsets, times = selection.offsets, for_kernels(selection.timestamps)
    bits = for_kernels(selection.values).view(np.uint64)
    left_out = np.zeros(len(times), dtype=np.bool_)
    histograms = selection.histograms
    if histograms is not None:
        left_out[histograms.positions] = True
    out = np.empty(SAMPLE_BYTES * len(times), dtype=np.uint8)
    ends = np.empty(len(offsets) - 1, dtype=np.int64)
    write_samples(for_kernels(offsets), times, bits, left_out, out, ends)
    starts = np.concatenate((np.zeros(1, dtype=np.int64), ends[:-1]))
    rows = order(selection.labels)
    for row, labels in zip(rows.tolist(), remote_chunks.label_fields(selection.labels, rows), strict=True):
        samples = out[starts[row] : ends[row]].tobytes()
        native = b""
        if histograms is not None:
            low, high = np.searchsorted(histograms.positions, offsets[row : row + 2]).tolist()
            bounds = histograms.offsets
            native = b"".join(
                delimited(
                    4,
                    histogram_message(
                        histograms.data[bounds[i] : bounds[i + 1]].tobytes(), int(times[histograms.positions[i]])
                    ),
                )
                for i in range(low, high)
            )
        yield delimited(1, labels + samples + native)


def histogram_message(data: bytes, timestamp_ms: int) -> bytes:
    """The Histogram message for a histogram's bytes (`docs/format/histogram.md`), which are taken to be whole."""
    return _HistogramWriter(data).message(timestamp_ms)


class _HistogramWriter:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 10
        self._is_float = bool(data[0] & 4)
        self._schema, self._sum = struct.unpack_from("<bd", data, 1)

    def message(self, timestamp_ms: int) -> bytes:
        custom = self._schema == -53
        out = self._count(1, 2) + _double(3, self._sum) + b"\x20" + uvarint(_zigzag(self._schema))
        if not custom:
            out += b"\x29" + self._bytes(8) + self._count(6, 7)
        out += self._buckets(11)
        if custom:
            n = self._uvarint()
            out += delimited(16, self._bytes(8 * n))
        else:
            out += self._buckets(8)
        hint = self._data[0] & 3
        out += (b"\x70" + bytes((hint,)) if hint else b"") + b"\x78" + uvarint(timestamp_ms % (1 << 64))
        return out

    def _buckets(self, number: int) -> bytes:
        """Spans, with this field number, and counts or differences behind."""
        spans, total = b"", 0
        for _ in range(self._uvarint()):
            offset, length = self._uvarint(), self._uvarint()
            spans += delimited(number, b"\x08" + uvarint(offset) + b"\x10" + uvarint(length))
            total += length
        if self._is_float:
            counts = delimited(number + 2, self._bytes(8 * total))
        else:
            start = self._at
            for _ in range(total):
                self._uvarint()
            counts = delimited(number + 1, self._data[start : self._at])
        return spans + counts if total else spans

    def _count(self, whole: int, real: int) -> bytes:
        if self._is_float:
            return uvarint(real << 3 | 1) + self._bytes(8)
        return uvarint(whole << 3) + uvarint(self._uvarint())

    def _bytes(self, size: int) -> bytes:
        self._at += size
        return self._data[self._at - size : self._at]

    def _uvarint(self) -> int:
        value = shift = 0
        while True:
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7


def _zigzag(value: int) -> int:
    return value << 1 ^ value >> 63


def _double(number: int, value: float) -> bytes:
    return uvarint(number << 3 | 1) + struct.pack("<d", value)
