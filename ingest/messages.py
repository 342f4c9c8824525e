"""Exemplars, histograms and metadata of a remote-write request, as rows for the log."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import orjson
from numpy.typing import NDArray

from common.attachments import MAX_BYTES, Attachments, Kind
from common.kernels import histogram_codec as codec
from common.kernels import remote_write as kernels
from common.labels import canonical_labels
from common.protobuf import Malformed, fields, signed
from common.tenants import DEFAULT_TENANT
from ingest.errors import BadRequest, Fault
from ingest.write_request import TYPES

_REMEMBERED_BYTES = 1024
"""Metadata up to this size is not read again while it is remembered; the rest is not worth the memory."""
MAX_EXEMPLAR_CHARACTERS = 128
"""Of all names and values of an exemplar's labels together, as OpenMetrics has it."""

_FAULTS = {
    codec.UNKNOWN_SCHEMA: Fault.HISTOGRAM_SCHEMA,
    codec.NEGATIVE_GAP: Fault.HISTOGRAM_SPANS,
    codec.BUCKETS_MISMATCH: Fault.HISTOGRAM_BUCKETS,
    codec.NEGATIVE_COUNT: Fault.HISTOGRAM_NEGATIVE,
    codec.COUNT_MISMATCH: Fault.HISTOGRAM_COUNT,
    codec.BAD_BOUNDS: Fault.HISTOGRAM_BOUNDS,
    codec.BAD_THRESHOLD: Fault.HISTOGRAM_THRESHOLD,
    codec.NOT_OF_CUSTOM_BOUNDS: Fault.HISTOGRAM_BOUNDS,
}


@dataclass(frozen=True, slots=True, eq=False)
class Messages:
    """What a request has besides float samples.

    rows, places: of histograms and exemplars, and the place of each among what the walk found.
    stale: int64 (n,), places of histograms that only say that their series has ended; stale_times: int64 (n,), ms.
    faults: (fault, place) of each refused histogram. metadata: (family, bytes of its row).
    n_dropped: exemplars that are not stored, since they break the rules for exemplars.
    """

    rows: Attachments
    places: NDArray[np.int64]
    stale: NDArray[np.int64]
    stale_times: NDArray[np.int64]
    faults: list[tuple[Fault, int]]
    metadata: list[tuple[str, bytes]]
    n_dropped: int


def read(data: NDArray[np.uint8], found: NDArray[np.int64], tenant: str = DEFAULT_TENANT) -> Messages:
    """Read the messages that `kernels.walk` found in a request of a tenant.

    Raises:
        BadRequest: one of them is not what its field says.
    """
    histograms = np.flatnonzero(found[:, 0] == kernels.HISTOGRAM)
    ranges = np.ascontiguousarray(found[histograms, 2:4])
    out = np.empty(int((ranges[:, 1] - ranges[:, 0]).sum()) + codec.EXTRA_BYTES * len(ranges), dtype=np.uint8)
    offsets = np.zeros(len(ranges) + 1, dtype=np.int64)
    timestamps, statuses = np.empty(len(ranges), dtype=np.int64), np.empty(len(ranges), dtype=np.int64)
    if len(ranges):
        codec.encode_histograms(data, ranges, out, offsets, timestamps, statuses)
        malformed = np.flatnonzero(statuses == codec.MALFORMED)
        if len(malformed):
            at = int(ranges[malformed[0], 0])
            raise BadRequest(f"the body is not a prometheus.WriteRequest: the Histogram at byte {at} is malformed")
    good = (statuses == codec.OK) & (np.diff(offsets) <= MAX_BYTES)
    faults = [
        (_FAULTS.get(status, Fault.HISTOGRAM_TOO_LARGE), place)
        for status, place in zip(statuses[~good].tolist(), histograms[~good].tolist(), strict=True)
        if status != codec.STALE
    ]
    rows = Attachments(
        np.full(len(ranges), Kind.HISTOGRAM, dtype=np.uint8),
        np.zeros(len(ranges), dtype=np.uint32),
        timestamps,
        offsets,
        out[: offsets[-1]],
    )
    stale = statuses == codec.STALE
    places = histograms
    if not good.all():
        kept = np.flatnonzero(good)
        rows, places = rows.take(kept), histograms[kept]
    try:
        rows, places, n_dropped = _with_exemplars(data, found, rows, places)
        metadata = _metadata(data, found, tenant)
    except Malformed:
        message = "the body is not a prometheus.WriteRequest: an exemplar or metadata is malformed"
        raise BadRequest(message) from None
    return Messages(rows, places, histograms[stale], timestamps[stale], faults, metadata, n_dropped)


def _with_exemplars(
    data: NDArray[np.uint8], found: NDArray[np.int64], rows: Attachments, places: NDArray[np.int64]
) -> tuple[Attachments, NDArray[np.int64], int]:
    exemplars = np.flatnonzero(found[:, 0] == kernels.EXEMPLAR)
    if not len(exemplars):
        return rows, places, 0
    taken, kept = [], []
    for place, (start, end) in zip(exemplars.tolist(), found[exemplars, 2:4].tolist(), strict=True):
        exemplar = _exemplar(data[start:end].tobytes())
        if exemplar is not None:
            taken.append((Kind.EXEMPLAR, 0, *exemplar))
            kept.append(place)
    more = Attachments.of(taken)
    both = Attachments.joined([rows, more])
    return both, np.concatenate((places, np.array(kept, dtype=np.int64))), len(exemplars) - len(kept)


def _exemplar(message: bytes) -> tuple[int, bytes] | None:
    """Time and bytes of an Exemplar message; None if it breaks the rules for exemplars."""
    labels: dict[str, str] = {}
    value, timestamp, n_characters, valid = bytes(8), 0, 0, True
    for number, wire_type, content in fields(message):
        if number == 1 and wire_type == 2 and isinstance(content, bytes):
            texts = {1: b"", 2: b""}
            for inner, inner_type, inside in fields(content):
                if inner in texts and inner_type == 2 and isinstance(inside, bytes):
                    texts[inner] = inside
            try:
                name, text = texts[1].decode(), texts[2].decode()
            except UnicodeDecodeError:
                valid = False
                continue
            valid = valid and bool(name) and name not in labels
            n_characters += len(name) + len(text)
            labels[name] = text
        elif number == 2 and wire_type == 1 and isinstance(content, bytes):
            value = content
        elif number == 3 and wire_type == 0 and isinstance(content, int):
            timestamp = signed(content)
    if not valid or n_characters > MAX_EXEMPLAR_CHARACTERS:
        return None
    return timestamp, value + canonical_labels(labels)


def _metadata(data: NDArray[np.uint8], found: NDArray[np.int64], tenant: str) -> list[tuple[str, bytes]]:
    """MetricMetadata messages; those that are not text or too large are left out."""
    out = []
    for start, end in found[found[:, 0] == kernels.METADATA, 2:4].tolist():
        message = data[start:end].tobytes()
        # Senders repeat all of it every minute.
        row = (_remembered if end - start <= _REMEMBERED_BYTES else _metadata_of)(message, tenant)
        if row is not None:
            out.append(row)
    return out


def _metadata_of(message: bytes, tenant: str) -> tuple[str, bytes] | None:
    """The family of a MetricMetadata message and its row, if there is one."""
    kind, texts = 0, {2: b"", 4: b"", 5: b""}
    for number, wire_type, content in fields(message):
        if number == 1 and wire_type == 0 and isinstance(content, int):
            kind = content
        elif number in texts and wire_type == 2 and isinstance(content, bytes):
            texts[number] = content
    try:
        family, text, unit = (texts[number].decode() for number in (2, 4, 5))
    except UnicodeDecodeError:
        return None
    row = metadata_row(family, TYPES[kind] if kind < len(TYPES) else TYPES[0], text, unit, tenant)
    return (family, row) if family and len(row) <= MAX_BYTES else None


_remembered = lru_cache(maxsize=8192)(_metadata_of)


def metadata_row(family: str, kind: str, text: str, unit: str, tenant: str = DEFAULT_TENANT) -> bytes:
    """The bytes of a row of metadata (`docs/format/log-record.md`)."""
    row = {"family": family, "type": kind, "help": text, "unit": unit}
    if tenant != DEFAULT_TENANT:
        row["tenant"] = tenant
    return orjson.dumps(row)
