"""OpenMetrics and Prometheus' text format as messages of remote write 1.0, a piece at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from common.labels import METRIC_NAME
from ingest.errors import BadRequest
from ingest.write_request import exemplar_field, labels_field, metadata_field, sample_field, series_field

PIECE_SAMPLES = 20_000
"""Samples of one message."""
OPEN_METRICS = "application/openmetrics-text"


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
    time_ms = _time_ms(sample.timestamp, now_ms)
    content = labels_field({**sample.labels, METRIC_NAME: sample.name}) + sample_field(
        float(sample.value), time_ms
    )
    exemplar = sample.exemplar
    if exemplar is not None:
        content += exemplar_field(exemplar.labels, float(exemplar.value), _time_ms(exemplar.timestamp, time_ms))
    return series_field(content)


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
    return metadata_field(family.type, name, family.documentation, family.unit or "")
