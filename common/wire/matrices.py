"""Answers to evaluations: step matrices as frames (`docs/format/read-api.md`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.labels import LabelTable
from common.wire.answers import label_frames, opening, read_table_of, shape_of, table_header
from common.wire.frames import FrameReader, Kind, WireError, column_frames, frame, json_frame

MAX_MESSAGES = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class StepMatrix:
    """Series, or groups of them, at the steps of an evaluation.

    dropped: bool (n,); the metric name is to go. present: bool (n, n_steps).
    columns: float64 (n_present,) each: what is known of each present cell, row by row, bits as they are.
    series, samples: read for it. samples_at_steps: looked at for each step, if it was asked.
    """

    labels: LabelTable
    dropped: NDArray[np.bool_]
    present: NDArray[np.bool_]
    columns: tuple[NDArray[np.float64], ...]
    warnings: Sequence[str] = field(default=())
    infos: Sequence[str] = field(default=())
    series: int = 0
    samples: int = 0
    samples_at_steps: Sequence[int] | None = None


def matrix_frames(matrix: StepMatrix) -> Iterator[bytes]:
    """A matrix as frames."""
    content, codes, strings = table_header(matrix.labels)
    content |= {
        "steps": matrix.present.shape[1],
        "columns": len(matrix.columns),
        "warnings": list(matrix.warnings)[:MAX_MESSAGES],
        "infos": list(matrix.infos)[:MAX_MESSAGES],
        "read_series": matrix.series,
        "read_samples": matrix.samples,
    }
    if matrix.samples_at_steps is not None:
        content["samples_at_steps"] = list(matrix.samples_at_steps)
    yield json_frame(Kind.HEADER, content)
    yield from label_frames(codes, strings)
    yield from column_frames(Kind.FLAGS, matrix.dropped.astype(np.uint8))
    yield from column_frames(Kind.PRESENT, np.packbits(matrix.present.reshape(-1), bitorder="little"))
    for column in matrix.columns:
        yield from column_frames(Kind.CELLS, column)
    yield frame(Kind.END)


def read_matrix(reader: FrameReader, n_steps: int, n_columns: int, max_cells: int) -> StepMatrix:
    """A matrix of so many steps and columns, with at most so many cells; raises WireError and the node's error."""
    content = opening(reader)
    shape = shape_of(content)
    if content.get("steps") != n_steps or content.get("columns") != n_columns:
        raise WireError("the answer has other steps or columns than were asked for")
    if shape.n_series * n_steps > max_cells:
        raise WireError(f"the answer has more than {max_cells} cells")
    series, samples = (_count(content, key) for key in ("read_series", "read_samples"))
    at_steps = _samples_at_steps(content, n_steps)
    warnings, infos = (_messages(content, key) for key in ("warnings", "infos"))
    table = read_table_of(reader, shape)
    n_cells = shape.n_series * n_steps
    try:
        flags = np.empty(shape.n_series, dtype=np.uint8)
        packed = np.empty((n_cells + 7) // 8, dtype=np.uint8)
        reader.fill(Kind.FLAGS, flags)
        reader.fill(Kind.PRESENT, packed)
        present = np.unpackbits(packed, count=n_cells, bitorder="little").view(np.bool_)
        columns = tuple(np.empty(np.count_nonzero(present), dtype=np.float64) for _ in range(n_columns))
    except MemoryError:
        raise WireError("the answer is larger than memory") from None
    if len(flags) and flags.max() > 1:
        raise WireError("the answer has a flag that is neither 0 nor 1")
    for column in columns:
        reader.fill(Kind.CELLS, column)
    reader.end()
    matrix = present.reshape(shape.n_series, n_steps)
    return StepMatrix(table, flags.view(np.bool_), matrix, columns, warnings, infos, series, samples, at_steps)


def _count(content: dict[str, Any], key: str) -> int:
    found = content.get(key)
    if type(found) is not int or not 0 <= found < 1 << 62:
        raise WireError("the answer does not say how much was read")
    return found


def _samples_at_steps(content: dict[str, Any], n_steps: int) -> list[int] | None:
    found = content.get("samples_at_steps")
    if found is None:
        return None
    if not isinstance(found, list) or len(found) != n_steps or not all(type(n) is int for n in found):
        raise WireError("the answer does not say how many samples each step looks at")
    if not all(0 <= n < 1 << 62 for n in found):
        raise WireError("the answer has an impossible number of samples at a step")
    return found


def _messages(content: dict[str, Any], key: str) -> list[str]:
    found = content.get(key)
    if not isinstance(found, list) or not all(isinstance(message, str) for message in found):
        raise WireError("the answer's messages are not text")
    return found
