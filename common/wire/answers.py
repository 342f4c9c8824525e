"""Answers of the read API: selections, label tables, strings and errors as frames (`docs/format/read-api.md`)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import asdict
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from common.errors import CallerError, RetryableError
from common.histograms import EncodedHistograms
from common.labels import LabelTable, StringPool
from common.store import (
    ANY_NUMBER,
    Exemplar,
    Extent,
    Metadata,
    NotCaughtUp,
    Selection,
    SeriesExemplars,
    TenantUsage,
    TooManySamples,
    TooManySeries,
    Usage,
)
from common.wire.evaluation import NotEvaluated
from common.wire.frames import FrameReader, Kind, WireError, column_frames, frame, json_frame, parse_object

VERSION = 1
MAX_SERIES = 1 << 26
MAX_SAMPLES = 1 << 36
MAX_STRING_BYTES = 1 << 32
MAX_CODES = 1 << 32
MAX_HISTOGRAM_BYTES = 1 << 34
_CHECKED_AT_ONCE = 1 << 20


class Strings(NamedTuple):
    """lengths: uint32 (n,), in bytes. data: uint8, the UTF-8 bytes one after another."""

    lengths: NDArray[np.uint32]
    data: NDArray[np.uint8]


class Shape(NamedTuple):
    """What the header of an answer announces."""

    names: tuple[str, ...]
    n_series: int
    n_samples: int
    n_strings: int
    n_string_bytes: int
    n_histograms: int
    n_histogram_bytes: int


# Encoding.


def selection_frames(selection: Selection) -> Iterator[bytes]:
    """A selection as frames."""
    codes, strings = _compact(selection.labels)
    histograms = selection.histograms
    sizes = len(selection.labels), len(selection.timestamps)
    yield _header(strings, selection.labels.names, *sizes, histograms)
    yield from label_frames(codes, strings)
    yield from column_frames(Kind.COUNTS, np.diff(selection.offsets))
    yield from column_frames(Kind.TIMESTAMPS, selection.timestamps)
    yield from column_frames(Kind.VALUES, selection.values)
    if histograms is not None:
        yield from column_frames(Kind.HISTOGRAM_POSITIONS, histograms.positions)
        yield from column_frames(Kind.HISTOGRAM_LENGTHS, np.diff(histograms.offsets).astype(np.uint32))
        yield from column_frames(Kind.HISTOGRAM_BYTES, histograms.data)
    yield frame(Kind.END)


def table_frames(table: LabelTable) -> Iterator[bytes]:
    """Label sets as frames."""
    codes, strings = _compact(table)
    yield _header(strings, table.names, len(table), 0)
    yield from label_frames(codes, strings)
    yield frame(Kind.END)


def text_frames(texts: list[str]) -> Iterator[bytes]:
    """A list of strings as frames."""
    encoded = [text.encode() for text in texts]
    strings = Strings(
        np.array([len(text) for text in encoded], dtype=np.uint32),
        np.frombuffer(b"".join(encoded), dtype=np.uint8),
    )
    yield _header(strings, (), 0, 0)
    yield from _string_frames(strings)
    yield frame(Kind.END)


def extent_frames(extent: Extent) -> Iterator[bytes]:
    """How much a node holds, as frames."""
    yield json_frame(Kind.HEADER, {"v": VERSION, "extent": asdict(extent)})
    yield frame(Kind.END)


def usage_frames(usage: Usage) -> Iterator[bytes]:
    """How much there is of each tenant, as frames: one string a tenant, and one of what is pending."""
    known = usage.tenants.items()
    rows: list[list[Any]] = [[name, one.series, one.samples, one.size_bytes] for name, one in known]
    yield from text_frames([orjson.dumps(row).decode() for row in [[usage.n_pending], *rows]])


def births_frames(births: dict[int, int]) -> Iterator[bytes]:
    """How many series began in each hour, as frames: one string an hour."""
    yield from text_frames([orjson.dumps(row).decode() for row in births.items()])


def error_content(error: Exception) -> dict[str, Any]:
    """What a node says of an error, as JSON; `type` decides which error is raised by `error_of`."""
    match error:
        case TooManySamples():
            kind = "too_many_samples"
        case TooManySeries():
            return {"type": "too_many_series", "message": str(error), "max_series": error.max_series}
        case NotCaughtUp():
            kind = "not_caught_up"
        case NotEvaluated():
            return {"type": "not_evaluated", "reason": error.reason, "message": str(error)}
        case CallerError():
            kind = "caller"
        case RetryableError():
            return {"type": "unavailable", "message": str(error), "retry_after_s": error.retry_after_s}
        case _:
            return {"type": "internal", "message": "internal error; the log of the node has the details"}
    return {"type": kind, "message": str(error)}


def error_of(content: dict[str, Any]) -> Exception:
    """The error that a node spoke of."""
    message = str(content.get("message") or content.get("error") or "no reason given")[:4000]
    match content.get("type"):
        case "too_many_samples":
            return TooManySamples(message)
        case "too_many_series":
            limit = content.get("max_series")
            return TooManySeries(limit if type(limit) is int else 0)
        case "not_caught_up":
            return NotCaughtUp(message)
        case "not_evaluated":
            return NotEvaluated(str(content.get("reason")), message)
        case "caller":
            return CallerError(message)
        case _:
            return RetryableError(message)


def metadata_frames(metadata: dict[str, list[Metadata]]) -> Iterator[bytes]:
    """Metadata by family, as frames: one string a family."""
    rows = [[family, [asdict(one) for one in known]] for family, known in metadata.items()]
    yield from text_frames([orjson.dumps(row).decode() for row in rows])


def exemplar_frames(found: list[SeriesExemplars]) -> Iterator[bytes]:
    """Exemplars by series, as frames: one string a series; values as the hex digits of their bits."""
    rows = [
        [one.labels, [[e.labels, struct.pack("<d", e.value).hex(), e.timestamp_ms] for e in one.exemplars]]
        for one in found
    ]
    yield from text_frames([orjson.dumps(row).decode() for row in rows])


def table_header(table: LabelTable) -> tuple[dict[str, Any], NDArray[np.int32], Strings]:
    """The content of the header of an answer with a table, and what `label_frames` takes."""
    codes, strings = _compact(table)
    return _header_content(strings, table.names, len(table), 0), codes, strings


def _header(strings: Strings, *about: Any) -> bytes:
    return json_frame(Kind.HEADER, _header_content(strings, *about))


def _header_content(
    strings: Strings,
    names: tuple[str, ...],
    n_series: int,
    n_samples: int,
    histograms: EncodedHistograms | None = None,
) -> dict[str, Any]:
    return {
        "v": VERSION,
        "names": names,
        "series": n_series,
        "samples": n_samples,
        "strings": len(strings.lengths),
        "string_bytes": len(strings.data),
        "histograms": 0 if histograms is None else len(histograms),
        "histogram_bytes": 0 if histograms is None else len(histograms.data),
    }


def _string_frames(strings: Strings) -> Iterator[bytes]:
    yield from column_frames(Kind.STRING_LENGTHS, strings.lengths)
    yield from column_frames(Kind.STRING_BYTES, strings.data)


def label_frames(codes: NDArray[np.int32], strings: Strings) -> Iterator[bytes]:
    """Label sets as frames, the header left out."""
    yield from _string_frames(strings)
    yield from column_frames(Kind.CODES, codes.reshape(-1))


def _compact(table: LabelTable) -> tuple[NDArray[np.int32], Strings]:
    """Codes that count from 1 the strings in use, and these strings."""
    codes = table.codes
    used: NDArray[np.integer]
    if 4 * codes.size < len(table.pool):
        used, inverse = np.unique(codes, return_inverse=True)
        missing = int(not (len(used) and used[0] == 0))
        compacted: NDArray[np.int32] = (inverse.reshape(codes.shape) + missing).astype(np.int32)
    else:
        marked = np.zeros(len(table.pool), dtype=np.bool_)
        marked[0] = True
        marked[codes] = True
        used = np.flatnonzero(marked)
        compacted = (np.cumsum(marked) - 1).astype(np.int32)[codes]
    return compacted, _bytes_of(table.pool, used[used != 0].astype(np.int64))


def _bytes_of(pool: StringPool, codes: NDArray[np.int64]) -> Strings:
    if not len(codes):
        return Strings(np.zeros(0, dtype=np.uint32), np.zeros(0, dtype=np.uint8))
    ends, arena = pool.utf8()
    starts = ends[codes - 1]
    lengths = ends[codes] - starts
    before = np.cumsum(lengths) - lengths
    data = arena[np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))]
    return Strings(lengths.astype(np.uint32), data)


# Decoding. Every reader raises WireError for what does not follow the format, and the node's own error.


def read_selection(reader: FrameReader, max_samples: int, max_series: int = ANY_NUMBER) -> Selection:
    """A selection of at most so many samples and series, checked to be one: see `common.store.Selection`."""
    shape = shape_of(opening(reader))
    if shape.n_samples > min(max_samples, MAX_SAMPLES):
        raise WireError(f"the answer has {shape.n_samples} samples, more than were asked for")
    if shape.n_series > max_series:
        raise WireError(f"the answer has {shape.n_series} series, more than were asked for")
    table = read_table_of(reader, shape)
    try:
        counts = np.empty(shape.n_series, dtype=np.int64)
        timestamps = np.empty(shape.n_samples, dtype=np.int64)
        values = np.empty(shape.n_samples, dtype=np.float64)
    except MemoryError:
        raise WireError("the answer is larger than memory") from None
    reader.fill(Kind.COUNTS, counts)
    if len(counts) and (counts.min() < 1 or counts.max() > shape.n_samples):
        raise WireError("the answer has a series with an impossible number of samples")
    offsets = np.zeros(shape.n_series + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    if offsets[-1] != shape.n_samples:
        raise WireError("the samples of all series are not as many as announced")
    reader.fill(Kind.TIMESTAMPS, timestamps)
    _check_ascending(offsets, timestamps)
    reader.fill(Kind.VALUES, values)
    histograms = _read_histograms(reader, shape) if shape.n_histograms else None
    reader.end()
    return Selection(table, offsets, timestamps, values, histograms)


def _read_histograms(reader: FrameReader, shape: Shape) -> EncodedHistograms:
    try:
        positions = np.empty(shape.n_histograms, dtype=np.int64)
        lengths = np.empty(shape.n_histograms, dtype=np.uint32)
        data = np.empty(shape.n_histogram_bytes, dtype=np.uint8)
    except MemoryError:
        raise WireError("the answer is larger than memory") from None
    reader.fill(Kind.HISTOGRAM_POSITIONS, positions)
    reader.fill(Kind.HISTOGRAM_LENGTHS, lengths)
    if positions[0] < 0 or positions[-1] >= shape.n_samples or (positions[1:] <= positions[:-1]).any():
        raise WireError("the positions of histograms do not ascend among the samples")
    offsets = np.zeros(shape.n_histograms + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    if offsets[-1] != shape.n_histogram_bytes:
        raise WireError("the lengths of histograms do not add up")
    reader.fill(Kind.HISTOGRAM_BYTES, data)
    return EncodedHistograms(positions, offsets, data)


def read_metadata(reader: FrameReader) -> dict[str, list[Metadata]]:
    """Metadata by family."""
    try:
        rows = [orjson.loads(text) for text in read_texts(reader)]
        return {str(family): [Metadata(**one) for one in known] for family, known in rows}
    except (orjson.JSONDecodeError, TypeError, ValueError) as error:
        raise WireError(f"the answer's metadata cannot be read: {error}") from None


def read_births(reader: FrameReader) -> dict[int, int]:
    """How many series began in each hour."""
    try:
        return {int(hour): int(count) for hour, count in map(orjson.loads, read_texts(reader))}
    except (orjson.JSONDecodeError, TypeError, ValueError) as error:
        raise WireError(f"the answer's births cannot be read: {error}") from None


def read_usage(reader: FrameReader) -> Usage:
    """How much there is of each tenant."""
    try:
        (n_pending,), *rows = (orjson.loads(text) for text in read_texts(reader))
        tenants = {str(name): TenantUsage(*map(int, numbers)) for name, *numbers in rows}
        return Usage(tenants, int(n_pending))
    except (orjson.JSONDecodeError, TypeError, ValueError) as error:
        raise WireError(f"the answer's usage cannot be read: {error}") from None


def read_exemplars(reader: FrameReader) -> list[SeriesExemplars]:
    """Exemplars by series."""
    found = []
    try:
        for labels, exemplars in (orjson.loads(text) for text in read_texts(reader)):
            one = SeriesExemplars(dict(labels))
            for own, bits, time_ms in exemplars:
                value = struct.unpack("<d", bytes.fromhex(bits))[0]
                one.exemplars.append(Exemplar(dict(own), value, int(time_ms)))
            found.append(one)
    except (orjson.JSONDecodeError, TypeError, ValueError, struct.error) as error:
        raise WireError(f"the answer's exemplars cannot be read: {error}") from None
    return found


def read_table(reader: FrameReader, max_series: int = ANY_NUMBER) -> LabelTable:
    """At most so many label sets."""
    shape = shape_of(opening(reader))
    if shape.n_series > max_series:
        raise WireError(f"the answer has {shape.n_series} series, more than were asked for")
    table = read_table_of(reader, shape)
    reader.end()
    return table


def read_texts(reader: FrameReader) -> list[str]:
    """A list of strings."""
    texts = _read_strings(reader, shape_of(opening(reader)))
    reader.end()
    return texts


def read_extent(reader: FrameReader) -> Extent:
    """How much a node holds."""
    content = opening(reader).get("extent")
    if not isinstance(content, dict) or not all(type(number) is int for number in content.values()):
        raise WireError("the answer lacks the extent")
    reader.end()
    try:
        return Extent(**content)
    except TypeError:
        raise WireError("the answer's extent has other fields") from None


def opening(reader: FrameReader) -> dict[str, Any]:
    """The content of the header."""
    kind, payload = reader.next()
    content = parse_object(payload) if kind in (Kind.HEADER, Kind.ERROR) else {}
    if kind is Kind.ERROR:
        raise error_of(content)
    if kind is not Kind.HEADER or content.get("v") != VERSION:
        raise WireError("the answer does not begin as one of this version does")
    return content


def shape_of(content: dict[str, Any]) -> Shape:
    """What it announces, checked against the limits of the format."""
    names = content.get("names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise WireError("the answer lacks the names of labels")
    if any(first >= second for first, second in pairwise(names)):
        raise WireError("the names of labels do not ascend")
    keys = ("series", "samples", "strings", "string_bytes", "histograms", "histogram_bytes")
    counts = [content.get(key) for key in keys]
    limits = (MAX_SERIES, MAX_SAMPLES, MAX_CODES, MAX_STRING_BYTES, MAX_SAMPLES, MAX_HISTOGRAM_BYTES)
    for count, limit in zip(counts, limits, strict=True):
        if type(count) is not int or not 0 <= count <= limit:
            raise WireError("the answer announces impossible sizes")
    shape = Shape(tuple(names), *counts)  # type: ignore[arg-type]
    if len(names) * shape.n_series > MAX_CODES or shape.n_histograms > shape.n_samples:
        raise WireError("the answer announces impossible sizes")
    return shape


def _read_strings(reader: FrameReader, shape: Shape) -> list[str]:
    try:
        lengths = np.empty(shape.n_strings, dtype=np.uint32)
        data = np.empty(shape.n_string_bytes, dtype=np.uint8)
    except MemoryError:
        raise WireError("the answer is larger than memory") from None
    reader.fill(Kind.STRING_LENGTHS, lengths)
    ends = np.zeros(shape.n_strings + 1, dtype=np.int64)
    np.cumsum(lengths, out=ends[1:])
    if ends[-1] != shape.n_string_bytes:
        raise WireError("the lengths of strings do not add up")
    reader.fill(Kind.STRING_BYTES, data)
    blob = data.tobytes()
    try:
        if blob.isascii():
            whole = blob.decode()
            return [whole[start:end] for start, end in pairwise(ends.tolist())]
        return [blob[start:end].decode() for start, end in pairwise(ends.tolist())]
    except UnicodeDecodeError:
        raise WireError("a string is not UTF-8") from None


def read_table_of(reader: FrameReader, shape: Shape) -> LabelTable:
    """Label sets, the header read already."""
    pool = StringPool()
    interned = [0, *map(pool.intern, _read_strings(reader, shape))]
    try:
        codes = np.empty(len(shape.names) * shape.n_series, dtype=np.int32)
    except MemoryError:
        raise WireError("the answer is larger than memory") from None
    reader.fill(Kind.CODES, codes)
    if len(codes) and (codes.min() < 0 or codes.max() >= len(interned)):
        raise WireError("a label refers to a string that is not there")
    if interned != list(range(len(interned))):
        codes = np.array(interned, dtype=np.int32)[codes]
    return LabelTable(pool, shape.names, codes.reshape(len(shape.names), shape.n_series))


def _check_ascending(offsets: NDArray[np.int64], timestamps: NDArray[np.int64]) -> None:
    """Kernels rely on order, and their results would be silently wrong without it."""
    for first in range(0, len(timestamps) - 1, _CHECKED_AT_ONCE):
        part = timestamps[first : first + _CHECKED_AT_ONCE + 1]
        descents = np.flatnonzero(part[1:] <= part[:-1]) + first + 1
        # Only a series' first sample may be no later than the sample before it.
        at = np.searchsorted(offsets, descents)
        if not np.array_equal(offsets[at], descents):
            raise WireError("the timestamps of a series do not ascend")
