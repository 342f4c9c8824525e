"""Remote write 2.0, slowly: an encoder of requests from the plain values that 1.0 has."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from tests.oracles.remote_write import delimited, sample_field, uvarint


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
