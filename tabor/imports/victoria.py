"""JSON lines as VictoriaMetrics exports them (`/api/v1/export`): a series a line, with all of its samples."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from common.errors import CallerError
from common.labels import LabelTable
from common.store import STALE_NAN_BITS, Selection
from ingest.write_request import PIECE_SAMPLES
from tabor.imports.sending import Sender
from tabor.imports.texts import UNREADABLE, unpacked
from tabor.progress import Bar

MAX_LINE_BYTES = 256 << 20
_VALUES = b'},"values":['
_NO_JSON = re.compile(rb"(?:^|(?<=,))(?:([+-]?)Inf|NaN)(?=[\],])")
"""What older releases write into the array of values, and JSON does not have."""

Series = tuple[dict[str, str], NDArray[np.int64], NDArray[np.float64]]


def import_victoria(path: Path, sender: Sender) -> None:
    """Send the samples of a file; `null`, which stands for every NaN, becomes a stale marker.

    Raises:
        CallerError: a line is not as it should be; says which. What was sent before is stored.
    """
    size, before, sent_to, n_waiting = path.stat().st_size, sender.n_samples, 0, 0
    waiting: list[Series] = []
    try:
        with path.open("rb") as file, Bar(path.name, total=size) as bar:
            for number, line in _lines(unpacked(file), path):
                for piece in _pieces(_series(line, f"{path}: line {number}")):
                    waiting.append(piece)
                    n_waiting += len(piece[1])
                    if n_waiting >= PIECE_SAMPLES:
                        sender.send_selection(_selection(waiting), f"{path}: lines {sent_to + 1} to {number}")
                        waiting, n_waiting, sent_to = [], 0, number - 1
                        bar.update(file.tell(), note=f"{sender.n_samples - before:,} samples")
            if waiting:
                sender.send_selection(_selection(waiting), f"{path}: lines from {sent_to + 1} on")
    except UNREADABLE as error:
        raise CallerError(f"{path} cannot be read: {error}") from None


def _lines(file: Any, path: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise CallerError(
                f"{path}: line {number} has more than {MAX_LINE_BYTES >> 20} MiB; "
                "export it with max_rows_per_line=100000"
            )
        if line.strip():
            yield number, line


def _series(line: bytes, where: str) -> Series:
    try:
        content = orjson.loads(_as_json(line))
        labels, values, times = (content[name] for name in ("metric", "values", "timestamps"))
        if not all(type(text) is str for text in labels.values()) or len(values) != len(times):
            raise ValueError("labels are texts, and there are as many values as timestamps")
        floats = np.array([_number(value) for value in values], dtype=np.float64)
        floats.view(np.uint64)[[value is None for value in values]] = STALE_NAN_BITS
        moments = np.array(times, dtype=np.int64)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise CallerError(f"{where} is no series of VictoriaMetrics' JSON export: {error}") from None
    # Of two samples of one time the first stays, as with all that is sent.
    moments, firsts = np.unique(moments, return_index=True)
    return {name: text for name, text in labels.items() if text}, moments, floats[firsts]


def _number(value: Any) -> float:
    # Newer releases have infinities as texts.
    return np.nan if value is None else float(value)


def _as_json(line: bytes) -> bytes:
    """The line with values that JSON does not have as texts; no label looks like `_VALUES`, for its quotes."""
    head, found, tail = line.partition(_VALUES)
    if not found or not _NO_JSON.search(tail):
        return line
    texts = _NO_JSON.sub(
        lambda it: b"null" if it[0] == b"NaN" else b'"%bInfinity"' % it[1], tail.replace(b'"', b"")
    )
    return head + found + texts.replace(b"],timestamps:", b'],"timestamps":')


def _pieces(series: Series) -> Iterator[Series]:
    labels, times, values = series
    for first in range(0, len(times), PIECE_SAMPLES):
        yield labels, times[first : first + PIECE_SAMPLES], values[first : first + PIECE_SAMPLES]


def _selection(series: list[Series]) -> Selection:
    return Selection(
        LabelTable.of([labels for labels, _, _ in series]),
        np.cumsum([0, *(len(times) for _, times, _ in series)], dtype=np.int64),
        np.concatenate([times for _, times, _ in series]),
        np.concatenate([values for _, _, values in series]),
    )
