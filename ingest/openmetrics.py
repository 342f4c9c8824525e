"""OpenMetrics and Prometheus' text format as messages of remote write 1.0, a piece at a time.

Read a line at a time, as Prometheus reads it, so that a text may be larger than memory: whether the samples of a
family stand together, or a histogram has all its buckets, is not looked at. Sources: OpenMetrics 1.0, 'Text
format'; Prometheus' 'Exposition formats', with names in quotes as of Prometheus 3.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from common.labels import METRIC_NAME
from ingest.errors import BadRequest
from ingest.write_request import (
    PIECE_SAMPLES,
    TYPES,
    exemplar_field,
    labels_field,
    metadata_field,
    sample_field,
    series_field,
)

OPEN_METRICS = "application/openmetrics-text"
_MAX_KNOWN = 100_000
"""Series whose text is remembered with its labels."""
_MAX_MS = 1 << 63
MAX_LINE = 256 << 10
"""Characters of a line. A series may have 64 KiB of labels, and so may its exemplar."""

_QUOTED = r'"(?:[^"\\\n]|\\.)*"'
_METRIC = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_SERIES = re.compile(rf"(?:{_METRIC})?[ \t]*(?:\{{(?:[^\"}}]|{_QUOTED})*\}})?")
_LABELS = re.compile(rf"({_METRIC})?[ \t]*(?:\{{(.*)\}})?")
_LABEL = re.compile(rf"[ \t]*(?:({_METRIC})|({_QUOTED}))[ \t]*(?:=[ \t]*({_QUOTED}))?[ \t]*(,|\Z)")
_COMMENT = re.compile(rf"#[ \t]+(HELP|TYPE|UNIT)[ \t]+({_METRIC}|{_QUOTED})(?:[ \t]+(.*))?")
_ESCAPE = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Piece:
    """message: a prometheus.WriteRequest. n_samples: that it has. line: up to which the text has been read."""

    message: bytes
    n_samples: int
    line: int


def pieces(lines: Iterable[str], *, open_metrics: bool, now_ms: int) -> Iterator[Piece]:
    """Messages for the lines of a text; samples without a timestamp are of now.

    Raises:
        BadRequest: a line is not of the format; says which. What was yielded before holds.
    """
    reader = _Reader(open_metrics, now_ms)
    number = 0
    try:
        for number, line in enumerate(lines, start=1):
            reader.read(line)
            if reader.n_samples >= PIECE_SAMPLES:
                yield reader.piece(number)
        if open_metrics and not reader.ended:
            raise ValueError("# EOF is missing; the text has been cut off")
    except ValueError as error:
        raise BadRequest(f"line {number}: {error}") from None
    last = reader.piece(number)
    if last.message:
        yield last


class _Reader:
    """Lines to the parts of a message. Raises ValueError: a line is not of the format; says why."""

    def __init__(self, open_metrics: bool, now_ms: int) -> None:
        self._open_metrics = open_metrics
        self._now_ms = now_ms
        self._known: dict[str, bytes] = {}
        self._parts: list[bytes] = []
        self._text = ""
        self._series: list[bytes] = []
        self._family = ""
        self._about: dict[str, str] = {}
        self.n_samples = 0
        self.ended = False

    def piece(self, line: int) -> Piece:
        """What has been read since the last piece."""
        self._end_series()
        self._end_family()
        piece = Piece(b"".join(self._parts), self.n_samples, line)
        self._parts, self.n_samples = [], 0
        return piece

    def read(self, line: str) -> None:
        if len(line) > MAX_LINE:
            raise ValueError(f"it has {len(line)} characters; at most {MAX_LINE} are accepted")
        line = line.strip()
        if not line:
            return
        if self.ended:
            raise ValueError("there is something behind # EOF")
        if line[0] == "#":
            self._comment(line)
        else:
            self._sample(line)

    def _comment(self, line: str) -> None:
        if line == "# EOF" and self._open_metrics:
            self.ended = True
            return
        match = _COMMENT.match(line)
        if match is None:
            return
        kind, name, text = match.groups()
        name = _unquoted(name) if name[0] == '"' else name
        if name != self._family:
            self._end_family()
            self._family = name
        if kind == "TYPE":
            text = {"untyped": "unknown"}.get(text or "", text)
            if text not in TYPES:
                raise ValueError(f"{text} is not a type; there are {', '.join(TYPES)}")
        self._about[kind] = _unescaped(text or "") if kind == "HELP" else text or ""

    def _end_family(self) -> None:
        about = self._about
        if about:
            texts = about.get("HELP", ""), about.get("UNIT", "")
            self._parts.append(metadata_field(about.get("TYPE", "unknown"), self._family, *texts))
        self._about, self._family = {}, ""

    def _sample(self, line: str) -> None:
        match = _SERIES.match(line)
        end = match.end() if match is not None else 0
        text, rest = line[:end], line[end:]
        if text != self._text:
            self._end_series()
            labels = self._known.get(text)
            if labels is None:
                labels = _encoded(text)
                if len(self._known) >= _MAX_KNOWN:
                    self._known.clear()
                self._known[text] = labels
            self._text, self._series = text, [labels]
        exemplar = ""
        if self._open_metrics:
            rest, _, exemplar = rest.partition(" # ")
        words = rest.split()
        if not 1 <= len(words) <= 2:
            raise ValueError(f"a value, and a timestamp at most, are expected behind {text}, not {rest.strip()!r}")
        time_ms = self._time_ms(words[1]) if len(words) == 2 else self._now_ms
        self._series.append(sample_field(_value(words[0]), time_ms))
        if exemplar:
            self._series.append(self._exemplar(exemplar.strip(), time_ms))
        self.n_samples += 1

    def _end_series(self) -> None:
        if self._series:
            self._parts.append(series_field(b"".join(self._series)))
        self._text, self._series = "", []

    def _exemplar(self, text: str, time_ms: int) -> bytes:
        match = _SERIES.match(text)
        end = match.end() if match is not None else 0
        words = text[end:].split()
        if not text.startswith("{") or not 1 <= len(words) <= 2:
            raise ValueError(f"{text!r} is not an exemplar")
        if len(words) == 2:
            time_ms = self._time_ms(words[1])
        return exemplar_field(_labels(text[:end]), _value(words[0]), time_ms)

    def _time_ms(self, text: str) -> int:
        try:
            if text.lstrip("+-").isdecimal():
                time_ms = int(text) * (1000 if self._open_metrics else 1)
            elif "_" in text or not self._open_metrics:
                raise ValueError
            else:
                time_ms = round(float(text) * 1000)
        except (ValueError, OverflowError):
            unit = "seconds" if self._open_metrics else "whole milliseconds"
            raise ValueError(f"{text!r} is not a timestamp in {unit}") from None
        if not -_MAX_MS <= time_ms < _MAX_MS:
            raise ValueError(f"the timestamp {text} is out of range")
        return time_ms


def _encoded(text: str) -> bytes:
    labels = _labels(text)
    if not labels.get(METRIC_NAME):
        raise ValueError(f"{text!r} has no metric name")
    return labels_field(labels)


def _labels(text: str) -> dict[str, str]:
    """The labels of a series as `_SERIES` finds it; those with an empty value are none."""
    match = _LABELS.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a series")
    labels = {METRIC_NAME: match[1]} if match[1] else {}
    inside, at = (match[2] or "").rstrip(" \t"), 0
    while at < len(inside):
        found = _LABEL.match(inside, at)
        if found is None:
            raise ValueError(f"{inside[at:]!r} is not a label in {text}")
        plain, quoted, value, _ = found.groups()
        name = plain or _unquoted(quoted)
        if value is None:
            # A metric name that is not made of plain characters stands in quotes among the labels.
            if plain:
                raise ValueError(f"the label {name} has no value in {text}")
            name, text_of_label = METRIC_NAME, name
        else:
            text_of_label = _unquoted(value)
        if name in labels:
            raise ValueError(f"the label {name} is there twice in {text}")
        labels[name] = text_of_label
        at = found.end()
    return {name: text_of_label for name, text_of_label in labels.items() if text_of_label}


def _unquoted(literal: str) -> str:
    return _unescaped(literal[1:-1])


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: "\n" if match[1] == "n" else match[1], text) if "\\" in text else text


def _value(text: str) -> float:
    try:
        if "_" in text:
            raise ValueError
        return float(text)
    except ValueError:
        if text.startswith("{"):
            raise ValueError("native histograms in text are not supported") from None
        raise ValueError(f"{text!r} is not a number") from None
