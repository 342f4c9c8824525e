"""Step matrices and evaluations on the wire: what is cut, changed or invented is told from what a node said."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import CallerError
from common.labels import LabelTable
from common.store import STALE_NAN_BITS
from common.wire import answers
from common.wire.evaluation import Evaluation, NotEvaluated
from common.wire.frames import FrameReader, Kind, WireError, column_frames, frame, json_frame
from common.wire.matrices import StepMatrix, matrix_frames, read_matrix
from common.wire.requests import ReadRequest, encode_request, parse_request

ODD = np.array([STALE_NAN_BITS, 0x7FF8000000000123, 0xFFF0000000000000, 1 << 63], dtype=np.uint64).view(np.float64)
MATRIX = StepMatrix(
    LabelTable.of([{"__name__": "up", "job": "ü"}, {"__name__": "up"}, {}]),
    np.array([True, False, True]),
    np.array([[True, False, True], [False, True, False], [False, False, True]]),
    (ODD, np.array([1.0, 2.5, -3.0, 1e-300])),
    ["PromQL warning: one (1:2)"],
    ["PromQL info: two (1:2)", "three"],
    7,
    1 << 40,
)
EVALUATION = Evaluation(
    'sum(rate(a{b="ü\\"☃"}[5m]))', True, (0, 0), -5, 15_000, 9, -5, 120_000, 15_000, 300_000, 60_000, 3, 2, 1.5
)
BYTES = b"".join(matrix_frames(MATRIX))


def read(data: bytes, n_steps: int = 3, n_columns: int = 2, max_cells: int = 9) -> StepMatrix:
    return read_matrix(FrameReader([data]), n_steps, n_columns, max_cells)


def same(found: StepMatrix, expected: StepMatrix) -> bool:
    return (
        list(found.labels) == list(expected.labels)
        and found.dropped.tolist() == expected.dropped.tolist()
        and found.present.tolist() == expected.present.tolist()
        and [column.tobytes() for column in found.columns] == [column.tobytes() for column in expected.columns]
        and [*found.warnings, "|", *found.infos] == [*expected.warnings, "|", *expected.infos]
        and (found.series, found.samples) == (expected.series, expected.samples)
    )


def test_a_matrix_survives_the_wire_to_the_bit() -> None:
    assert same(read(BYTES), MATRIX)
    for size in (1, 7, 20):
        chunks = [BYTES[at : at + size] for at in range(0, len(BYTES), size)]
        assert same(read_matrix(FrameReader(chunks), 3, 2, 9), MATRIX)


def test_large_and_empty_matrices_survive_too() -> None:
    generator = np.random.default_rng(3)
    present = generator.random((300, 1000)) < 0.7
    labels = LabelTable.of([{"i": str(i)} for i in range(300)])
    values = generator.integers(0, 1 << 64, np.count_nonzero(present), dtype=np.uint64).view(np.float64)
    large = StepMatrix(labels, np.zeros(300, dtype=np.bool_), present, (values,))
    assert same(read(b"".join(matrix_frames(large)), 1000, 1, 300_000), large)
    nothing = np.zeros(0)
    empty = StepMatrix(LabelTable.of([]), nothing.astype(np.bool_), np.zeros((0, 5), dtype=np.bool_), (nothing,))
    assert same(read(b"".join(matrix_frames(empty)), 5, 1, 0), empty)


def test_a_matrix_cut_anywhere_is_never_taken_for_a_whole_one() -> None:
    for size in range(len(BYTES)):
        with pytest.raises(WireError, match="ends early"):
            read(BYTES[:size])


def test_a_matrix_with_a_flipped_bit_is_an_error() -> None:
    for bit in range(8 * len(BYTES)):
        data = bytearray(BYTES)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(WireError):
            read(bytes(data))


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=200))
def test_any_bytes_are_an_error(data: bytes) -> None:
    with pytest.raises(WireError):
        read(data)


def lying(**changed: object) -> bytes:
    """An answer without series whose header says something else."""
    content: dict[str, object] = {"v": 1, "names": [], "series": 0, "samples": 0, "strings": 0, "string_bytes": 0}
    content |= {"histograms": 0, "histogram_bytes": 0, "steps": 3, "columns": 2, "warnings": [], "infos": []}
    content |= {"read_series": 0, "read_samples": 0, **changed}
    return json_frame(Kind.HEADER, content) + frame(Kind.END)


@pytest.mark.parametrize(
    "changed",
    [
        {"steps": 4},
        {"steps": "3"},
        {"columns": 1},
        {"columns": None},
        {"series": 4},
        {"series": 1 << 25},
        {"series": -1},
        {"warnings": "none"},
        {"infos": [1]},
        {"read_series": -1},
        {"read_samples": 1 << 63},
        {"read_samples": True},
        {"v": 2},
    ],
)
def test_a_header_that_lies_is_an_error(changed: dict[str, object]) -> None:
    assert len(read(lying()).labels) == 0
    with pytest.raises(WireError):
        read(lying(**changed))


def test_columns_of_another_length_than_the_cells_are_an_error() -> None:
    for column in (np.zeros(3), np.zeros(5)):
        with pytest.raises(WireError, match="CELLS"):
            read(b"".join(matrix_frames(replace(MATRIX, columns=(column, MATRIX.columns[1])))))
    flags = b"".join(column_frames(Kind.FLAGS, np.array([2, 0, 1], dtype=np.uint8)))
    good = b"".join(column_frames(Kind.FLAGS, MATRIX.dropped.astype(np.uint8)))
    with pytest.raises(WireError, match="neither 0 nor 1"):
        read(BYTES.replace(good, flags))


def test_round_numbers_cost_little() -> None:
    values = np.arange(100_000) % 977 * 0.25
    assert sum(map(len, column_frames(Kind.CELLS, values))) < 0.3 * values.nbytes


def test_why_a_node_does_not_evaluate_survives_the_wire() -> None:
    error = answers.error_of(answers.error_content(NotEvaluated("evaluation", "no ü")))
    assert isinstance(error, NotEvaluated)
    assert (error.reason, str(error)) == ("evaluation", "no ü")


def test_an_evaluation_survives_the_wire() -> None:
    request = ReadRequest("one", (1, 4), (7, 9), 0.5, max_samples=5, max_series=6, evaluation=EVALUATION)
    assert parse_request(encode_request(request)) == request


def test_an_evaluation_with_changed_bytes_is_refused_or_read_never_worse() -> None:
    good = encode_request(ReadRequest("one", (1,), evaluation=EVALUATION))
    generator = random.Random(1)
    for _ in range(3000):
        data = bytearray(good)
        data[generator.randrange(len(data))] = generator.randrange(256)
        try:
            parse_request(bytes(data))
        except CallerError:
            continue


@pytest.mark.parametrize(
    "changed",
    [
        {"path": (0, "1")},
        {"path": (True,)},
        {"path": (0,) * 5000},
        {"n_steps": 0},
        {"n_steps": 1 << 60, "step_ms": 1 << 20},
        {"first_ms": 1 << 62},
        {"step_ms": -1},
        {"timeout_s": 0.0},
        {"strict": 1},
        {"query": None},
        {"samples_read": -1},
        {"lookback_ms": 0},
    ],
)
def test_an_evaluation_that_makes_no_sense_is_refused(changed: dict[str, object]) -> None:
    body = encode_request(ReadRequest("one", (1,), evaluation=replace(EVALUATION, **changed)))
    with pytest.raises(CallerError, match="evaluation"):
        parse_request(body)
