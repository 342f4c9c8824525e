"""Remote write 2.0, slowly: an encoder of requests from the plain values that 1.0 has, and a parser to them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TypeAlias

from tests.oracles.remote_write import (
    NotAMessage,
    delimited,
    fields,
    label_field,
    raw_fields,
    sample_field,
    uvarint,
    varints,
)

Said: TypeAlias = "tuple[list[dict[int, list[bytes]]], set[bytes]]"
"""Of each series the fields that its message of 1.0 has, by their number; and all metadata."""


@dataclass
class SeriesV2:
    """labels, in order; samples (ms, bits of the value); histograms as messages; exemplars (labels, value, ms)."""

    labels: list[tuple[str, str]]
    samples: list[tuple[int, int]] = field(default_factory=list)
    histograms: list[bytes] = field(default_factory=list)
    exemplars: list[tuple[list[tuple[str, str]], float, int]] = field(default_factory=list)
    metadata: tuple[int, str, str] | None = None
    """Type, help, unit."""


def request(series: list[SeriesV2], *, packed: bool = True) -> bytes:
    """An io.prometheus.write.v2.Request."""
    symbols: dict[str, int] = {"": 0}

    def refs(labels: list[tuple[str, str]]) -> bytes:
        numbers = [symbols.setdefault(text, len(symbols)) for pair in labels for text in pair]
        if packed:
            return delimited(1, b"".join(map(uvarint, numbers)))
        return b"".join(b"\x08" + uvarint(number) for number in numbers)

    out = []
    for one in series:
        content = refs(one.labels)
        # A sample's start timestamp, field 3, is not looked at.
        content += b"".join(delimited(2, sample_field(*s)[2:] + b"\x18\x05") for s in one.samples)
        content += b"".join(delimited(3, histogram) for histogram in one.histograms)
        for labels, value, time in one.exemplars:
            stamp = b"\x11" + struct.pack("<d", value) + b"\x18" + uvarint(time & (1 << 64) - 1)
            content += delimited(4, refs(labels) + stamp)
        if one.metadata is not None:
            kind, text, unit = one.metadata
            about = b"\x08" + uvarint(kind)
            for number, written in ((3, text), (4, unit)):
                about += uvarint(number << 3) + uvarint(symbols.setdefault(written, len(symbols)))
            content += delimited(5, about)
        out.append(delimited(5, content))
    return b"".join(delimited(4, symbol.encode()) for symbol in symbols) + b"".join(out)


def parse(data: bytes) -> Said:
    """What a request says, in the terms of 1.0.

    Raises:
        NotAMessage: the bytes are not one.
    """
    symbols, series = [], []
    for number, wire_type, content in raw_fields(data):
        if (number, wire_type) == (4, 2):
            symbols.append(content)
        elif number == 5:
            if wire_type != 2:
                raise NotAMessage
            series.append(content)
    if symbols and symbols[0]:
        raise NotAMessage
    read = [_series(content, symbols) for content in series]
    return [found for found, _ in read], {metadata for _, metadata in read if metadata}


def _series(data: bytes, symbols: list[bytes]) -> tuple[dict[int, list[bytes]], bytes]:
    """The fields of a series and the metadata of its family, as messages of 1.0 have them.

    No metadata are no bytes. What is inside of samples and histograms is not looked at.
    """
    labels = _labels(data, symbols)
    found: dict[int, list[bytes]] = {1: [label_field(*label) for label in labels], 2: [], 3: [], 4: []}
    metadata = None
    for number, content in fields(data, known=(2, 3, 4, 5)):
        if number == 2:
            found[2].append(content)
        elif number == 3:
            found[4].append(content)
        elif number == 4:
            found[3].append(_exemplar(content, symbols))
        elif number == 5:
            metadata = content
    metric = [value for name, value in labels if name == b"__name__"]
    return found, _metadata(metadata, metric[-1] if metric else None, symbols)


def _labels(data: bytes, symbols: list[bytes]) -> list[tuple[bytes, bytes]]:
    refs: list[int] = []
    for number, wire_type, content in raw_fields(data):
        if number == 1 and wire_type == 2:
            refs += varints(content)
        elif number == 1 and wire_type == 0:
            refs.append(content)
        elif number == 1:
            raise NotAMessage
    if len(refs) % 2 or any(ref >= len(symbols) for ref in refs):
        raise NotAMessage
    texts = [symbols[ref] for ref in refs]
    return list(zip(texts[::2], texts[1::2], strict=True))


def _exemplar(data: bytes, symbols: list[bytes]) -> bytes:
    out = b"".join(label_field(*label) for label in _labels(data, symbols))
    for number, wire_type, content in raw_fields(data):
        if (number, wire_type) == (2, 1):
            out += b"\x11" + content
        elif (number, wire_type) == (3, 0):
            out += b"\x18" + uvarint(content)
    return out


def _metadata(data: bytes | None, metric: bytes | None, symbols: list[bytes]) -> bytes:
    if data is None:
        return b""
    found = {1: 0, 3: 0, 4: 0} | {n: content for n, wire_type, content in raw_fields(data) if wire_type == 0}
    kind = found[1]
    if max(found[3], found[4]) >= len(symbols):
        raise NotAMessage
    if metric is None or not (kind or found[3] or found[4]):
        return b""
    if 3 <= kind <= 5:
        for suffix in (b"_bucket", b"_count", b"_sum"):
            if metric.endswith(suffix) and metric != suffix:
                metric = metric.removesuffix(suffix)
                break
    text, unit = symbols[found[3]], symbols[found[4]]
    return (
        b"\x08"
        + uvarint(kind if kind < 128 else 0)
        + delimited(2, metric)
        + delimited(4, text)
        + delimited(5, unit)
    )
