"""OpenMetrics and Prometheus' text format as messages of remote write 1.0, a piece at a time."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from common.labels import METRIC_NAME, uvarint
from common.protobuf import delimited
from ingest.errors import BadRequest

PIECE_SAMPLES = 20_000
"""Samples of one message."""
OPEN_METRICS = "application/openmetrics-text"
_TYPES = ("unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset")


@dataclass(frozen=True, slots=True)
class Piece:
    """message: a prometheus.WriteRequest. n_samples: that it has. line: up to which the text has been read."""

    message: bytes
    n_samples: int
    line: int


def pieces(text: str, *, open_metrics: bool, now_ms: int) -> Iterator[Piece]:
    """Messages for a text; samples without a timestamp are of now.

    Raises:
        BadRequest: a line is not of the format; says which. What was yielded before holds.
    """
    lines = _Lines(text)
    parts: list[bytes] = []
    n_samples = 0
    families = _families(lines, open_metrics)
    while True:
        try:
            family = next(families, None)
        except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
            raise BadRequest(f"line {lines.number}: {error}") from None
        if family is None:
            break
        if family.documentation or family.type != "unknown":
            parts.append(_metadata(family, "" if open_metrics else "_total"))
        for sample in family.samples:
            if sample.native_histogram is not None:
                raise BadRequest(f"line {lines.number}: native histograms in text are not supported")
            parts.append(_series(sample, now_ms))
            n_samples += 1
            if n_samples >= PIECE_SAMPLES:
                yield Piece(b"".join(parts), n_samples, lines.number)
                parts, n_samples = [], 0
    if parts:
        yield Piece(b"".join(parts), n_samples, lines.number)


class _Lines:
    """Lines of a text, and the number of the last one that was read."""

    def __init__(self, text: str) -> None:
        self._lines = iter(text.splitlines(keepends=True))
        self.number = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.number += 1
        return line


def _families(lines: _Lines, open_metrics: bool) -> Iterator[Any]:
    # Imported here, since few servers ever get such a request.
    if open_metrics:
        from prometheus_client.openmetrics.parser import text_fd_to_metric_families
    else:
        from prometheus_client.parser import text_fd_to_metric_families
    families: Iterator[Any] = text_fd_to_metric_families(lines)  # type: ignore[no-untyped-call]
    return families


def _series(sample: Any, now_ms: int) -> bytes:
    labels = {name: text for name, text in sample.labels.items() if text}
    labels[METRIC_NAME] = sample.name
    content = _labels(labels) + delimited(2, _stamp(1, float(sample.value), 2, _time_ms(sample.timestamp, now_ms)))
    exemplar = sample.exemplar
    if exemplar is not None:
        time_ms = _time_ms(exemplar.timestamp, _time_ms(sample.timestamp, now_ms))
        content += delimited(3, _labels(exemplar.labels) + _stamp(2, float(exemplar.value), 3, time_ms))
    return delimited(1, content)


def _labels(labels: dict[str, str]) -> bytes:
    pairs = sorted((name.encode(), text.encode()) for name, text in labels.items())
    return b"".join(delimited(1, delimited(1, name) + delimited(2, text)) for name, text in pairs)


def _stamp(value_number: int, value: float, time_number: int, time_ms: int) -> bytes:
    out = uvarint(value_number << 3 | 1) + struct.pack("<d", value)
    return out + uvarint(time_number << 3) + uvarint(time_ms % (1 << 64))


def _time_ms(timestamp: Any, default_ms: int) -> int:
    if timestamp is None:
        return default_ms
    if hasattr(timestamp, "nsec"):
        return int(timestamp.sec * 1000 + timestamp.nsec // 1_000_000)
    return round(float(timestamp) * 1000)


def _metadata(family: Any, counter_suffix: str) -> bytes:
    """Metadata under the name that the text gives the family; of counters the parser takes a suffix away."""
    name = family.name
    if counter_suffix and any(sample.name == name + counter_suffix for sample in family.samples[:1]):
        name += counter_suffix
    kind = _TYPES.index(family.type) if family.type in _TYPES else 0
    texts = ((2, name), (4, family.documentation), (5, family.unit or ""))
    return delimited(3, b"\x08" + bytes((kind,)) + b"".join(delimited(n, text.encode()) for n, text in texts))
