"""Frames, answers and requests: what is cut, changed or invented is told from what a node said."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import CallerError, RetryableError
from common.histograms import EncodedHistograms
from common.labels import LabelTable, StringPool
from common.store import (
    MAX_TIME_MS,
    MIN_TIME_MS,
    Exemplar,
    Matcher,
    MatchOp,
    Metadata,
    NotCaughtUp,
    Selection,
    SeriesExemplars,
    TooManySamples,
    TooManySeries,
)
from common.wire import answers
from common.wire.frames import FrameReader, Kind, WireError, column_frames, frame, json_frame
from common.wire.requests import MAX_REQUEST_BYTES, ReadRequest, encode_request, parse_request

SELECTION = Selection(
    LabelTable.of([{"__name__": "up", "job": "ü"}, {"__name__": "up"}, {"a": "x" * 300}]),
    np.array([0, 2, 3, 5]),
    np.array([MIN_TIME_MS, MAX_TIME_MS, 5, 1, 2]),
    np.array([0.0, -0.0, np.nan, np.inf, 1.5]),
)
WITH_HISTOGRAMS = replace(
    SELECTION,
    histograms=EncodedHistograms(np.array([1, 4]), np.array([0, 3, 7]), np.frombuffer(b"onetwo!", dtype=np.uint8)),
)
SELECTION_BYTES = b"".join(answers.selection_frames(SELECTION))


def select(data: bytes, max_samples: int = 5) -> Selection:
    return answers.read_selection(FrameReader([data]), max_samples)


def same(found: Selection, expected: Selection) -> bool:
    return (
        list(found.labels) == list(expected.labels)
        and found.offsets.tolist() == expected.offsets.tolist()
        and found.timestamps.tolist() == expected.timestamps.tolist()
        and found.values.tobytes() == expected.values.tobytes()
        and _histograms(found) == _histograms(expected)
    )


def _histograms(selection: Selection) -> list[bytes]:
    found = selection.histograms
    columns = [] if found is None else [found.positions, found.offsets, found.data]
    return [column.tobytes() for column in columns]


def test_histograms_of_a_selection_survive_the_wire_and_damage_is_told() -> None:
    data = b"".join(answers.selection_frames(WITH_HISTOGRAMS))
    assert same(select(data), WITH_HISTOGRAMS)
    for end in range(len(data)):
        with pytest.raises(WireError):
            select(data[:end])
    histograms = WITH_HISTOGRAMS.histograms
    assert histograms is not None
    for wrong in (np.array([4, 1]), np.array([1, 5]), np.array([-1, 1]), np.array([2, 2])):
        bad = replace(WITH_HISTOGRAMS, histograms=replace(histograms, positions=wrong))
        with pytest.raises(WireError, match="do not ascend among the samples"):
            select(b"".join(answers.selection_frames(bad)))


def test_metadata_and_exemplars_survive_the_wire() -> None:
    metadata = {"up": [Metadata("gauge", "is it ü", ""), Metadata("unknown", "", "s")], "other": []}
    found = answers.read_metadata(FrameReader([b"".join(answers.metadata_frames(metadata))]))
    assert found == metadata
    exemplars = [
        SeriesExemplars({"__name__": "a"}, [Exemplar({"id": "ü"}, -0.0, MIN_TIME_MS), Exemplar({}, np.inf, 5)])
    ]
    assert answers.read_exemplars(FrameReader([b"".join(answers.exemplar_frames(exemplars))])) == exemplars
    garbled = b"".join(answers.text_frames(['{"a": 1}']))
    for read in (answers.read_metadata, answers.read_exemplars):
        with pytest.raises(WireError, match="cannot be read"):
            read(FrameReader([garbled]))


def test_a_selection_survives_the_wire_however_it_is_cut_into_chunks() -> None:
    for size in (1, 7, 20, 1000):
        chunks = [SELECTION_BYTES[at : at + size] for at in range(0, len(SELECTION_BYTES), size)]
        assert same(answers.read_selection(FrameReader(chunks), 5), SELECTION)


def test_an_empty_selection_survives_the_wire() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    empty = Selection(LabelTable.of([]), np.zeros(1, dtype=np.int64), nothing, nothing.view(np.float64))
    assert same(select(b"".join(answers.selection_frames(empty))), empty)


def test_only_strings_in_use_travel_whatever_else_the_pool_holds() -> None:
    pool = StringPool()
    for i in range(10_000):
        pool.intern(f"unused {i}")
    for label_sets in ([{"a": "x"}], [{"a": "x"}, {"b": "y", "a": "z"}] * 3000):
        table = LabelTable.of(label_sets, pool)
        data = b"".join(answers.table_frames(table))
        found = answers.read_table(FrameReader([data]))
        assert list(found) == label_sets
        assert len(found.pool) <= 4
        assert len(data) < 1000


def test_an_answer_cut_anywhere_is_never_taken_for_a_whole_one() -> None:
    for size in range(len(SELECTION_BYTES)):
        with pytest.raises(WireError, match="ends early"):
            select(SELECTION_BYTES[:size])


def test_an_answer_with_a_flipped_bit_is_an_error() -> None:
    for bit in range(8 * len(SELECTION_BYTES)):
        data = bytearray(SELECTION_BYTES)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(WireError):
            select(bytes(data))


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200))
def test_any_bytes_are_an_error(data: bytes) -> None:
    with pytest.raises(WireError):
        select(data)


def lying(content: dict[str, object], *parts: tuple[Kind, np.ndarray]) -> bytes:
    """An answer with right checksums whose content is up to the test."""
    header = {
        "v": 1,
        "names": [],
        "series": 0,
        "samples": 0,
        "strings": 0,
        "string_bytes": 0,
        "histograms": 0,
        "histogram_bytes": 0,
        **content,
    }
    data = json_frame(Kind.HEADER, header)
    for kind, column in parts:
        data += b"".join(column_frames(kind, column))
    return data + frame(Kind.END)


I64 = np.int64


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (lying({"v": 2}), "this version"),
        (lying({"names": None}), "lacks the names"),
        (lying({"names": ["b", "a"]}), "do not ascend"),
        (lying({"names": ["a", "a"]}), "do not ascend"),
        (lying({"series": -1}), "impossible sizes"),
        (lying({"series": True}), "impossible sizes"),
        (lying({"series": 1 << 60}), "impossible sizes"),
        (lying({"names": [f"{i:03}" for i in range(100)], "series": 1 << 26}), "impossible sizes"),
        (lying({"samples": 6}), "more than were asked for"),
        (lying({"series": 1, "samples": 2}, (Kind.COUNTS, np.array([0]))), "impossible number"),
        (lying({"series": 1, "samples": 2}, (Kind.COUNTS, np.array([1]))), "not as many"),
        (lying({"series": 1, "samples": 2}, (Kind.COUNTS, np.array([2, 2]))), "another length"),
        (
            lying({"series": 1, "samples": 2}, (Kind.COUNTS, np.array([2])), (Kind.TIMESTAMPS, np.array([5, 5]))),
            "do not ascend",
        ),
        (lying({"series": 1, "samples": 1}, (Kind.VALUES, np.array([1.0]))), "where COUNTS belongs"),
        (
            lying({"strings": 1, "string_bytes": 2}, (Kind.STRING_LENGTHS, np.array([3], dtype=np.uint32))),
            "do not add up",
        ),
        (
            lying(
                {"strings": 1, "string_bytes": 1},
                (Kind.STRING_LENGTHS, np.array([1], dtype=np.uint32)),
                (Kind.STRING_BYTES, np.array([0xFF], dtype=np.uint8)),
            ),
            "not UTF-8",
        ),
        (
            lying({"names": ["a"], "series": 1, "samples": 1}, (Kind.CODES, np.array([1], dtype=np.int32))),
            "string that is not there",
        ),
        (frame(Kind.HEADER, b"[1]") + frame(Kind.END), "not"),
        (SELECTION_BYTES + b"\x00", "follows the end"),
    ],
)
def test_an_answer_that_contradicts_itself_is_an_error(data: bytes, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        select(data)


def test_order_is_checked_across_the_borders_of_what_is_checked_at_once() -> None:
    n = (1 << 20) + 10
    times = np.arange(n, dtype=I64)
    labels = LabelTable.of([{"a": "1"}, {"a": "2"}])
    for split, at, wrong in ((1 << 20, 0, False), (5, 1 << 20, True), (5, 7, True), (1 << 20, 1 << 20, False)):
        column = times.copy()
        if at:
            column[at:] -= 1
        selection = Selection(labels, np.array([0, split, n]), column, np.zeros(n))
        data = list(answers.selection_frames(selection))
        if wrong:
            with pytest.raises(WireError, match="do not ascend"):
                answers.read_selection(FrameReader(data), n)
        else:
            assert answers.read_selection(FrameReader(data), n).timestamps.tolist() == column.tolist()


def test_a_compressed_frame_that_would_become_too_large_is_refused_before_it_does() -> None:
    import zstandard

    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 28))
    data = bytearray(frame(Kind.HEADER, b"x" * 1000))
    assert len(bomb) < 1 << 20
    from common.wire import frames

    fields = frames._FIELDS.pack(Kind.HEADER, 1, 0, 1 << 20, len(bomb))
    data = bytearray(fields + frames._checksum(fields, bomb) + bomb)
    with pytest.raises(WireError, match="another size"):
        select(bytes(data))


def test_errors_come_back_as_what_they_were() -> None:
    for error in (TooManySamples("a"), TooManySeries(7), NotCaughtUp("b"), CallerError("c"), RetryableError("d")):
        data = json_frame(Kind.ERROR, answers.error_content(error))
        with pytest.raises(type(error), match=str(error)) as raised:
            select(data)
        assert type(raised.value) is type(error)
    data = json_frame(Kind.ERROR, answers.error_content(ZeroDivisionError("secret")))
    with pytest.raises(RetryableError, match="the log of the node"):
        select(data)


def test_regular_timestamps_cost_next_to_nothing() -> None:
    times = np.arange(0, 50_000 * 15_000, 15_000, dtype=I64)
    assert sum(map(len, column_frames(Kind.TIMESTAMPS, times))) < len(times) * 8 / 100


def test_a_request_survives_the_wire() -> None:
    matchers = (Matcher(MatchOp.EQUAL, "ü", "☃"), Matcher(MatchOp.NOT_REGEX, "b", "x.*"))
    for request in (
        ReadRequest("one", ()),
        ReadRequest("one", (0, 3), (1, 2), 1.5, (matchers, ()), MIN_TIME_MS, MAX_TIME_MS, 1 << 62, 7, "job"),
    ):
        assert parse_request(encode_request(request)) == request


def test_a_request_with_changed_bytes_is_refused_or_read_never_worse() -> None:
    good = encode_request(ReadRequest("one", (0, 3), (1, 2), 1.5, ((Matcher(MatchOp.EQUAL, "a", "b"),),)))
    generator = random.Random(1)
    for _ in range(2000):
        data = bytearray(good)
        data[generator.randrange(len(data))] = generator.randrange(256)
        try:
            parse_request(bytes(data))
        except CallerError:
            continue


def test_a_request_that_is_too_large_is_the_callers_fault() -> None:
    matcher = Matcher(MatchOp.EQUAL, "a", "x" * MAX_REQUEST_BYTES)
    with pytest.raises(CallerError, match="more than"):
        encode_request(ReadRequest("one", (0,), None, 0.0, ((matcher,),)))


def test_what_a_node_says_before_it_is_ready_is_passed_on() -> None:
    said = {"status": "error", "errorType": "unavailable", "error": "the views are not open yet"}
    assert "the views are not open yet" in str(answers.error_of(said))
