"""Lines of text become messages; what is no line of the format is refused with its number."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.protobuf import fields, signed
from ingest.errors import BadRequest
from ingest.openmetrics import pieces
from ingest.write_request import PIECE_SAMPLES, exemplar_field

NOW_MS = 1_790_000_000_000


def samples(text: str, *, open_metrics: bool = False) -> list[tuple[dict[str, str], int, float]]:
    out = []
    for piece in pieces(text.split("\n"), open_metrics=open_metrics, now_ms=NOW_MS):
        found = list(_samples(piece.message))
        assert piece.n_samples == len(found)
        out += found
    return out


def _samples(message: bytes) -> Iterator[tuple[dict[str, str], int, float]]:
    for number, _, series in fields(message):
        if number != 1:
            continue
        assert isinstance(series, bytes)
        labels = {}
        for inner, _, content in fields(series):
            assert isinstance(content, bytes)
            if inner == 1:
                name, value = (text for _, _, text in fields(content))
                assert isinstance(name, bytes)
                assert isinstance(value, bytes)
                labels[name.decode()] = value.decode()
            elif inner == 2:
                (_, _, bits), (_, _, time) = fields(content)
                assert isinstance(bits, bytes)
                assert isinstance(time, int)
                yield labels, signed(time), struct.unpack("<d", bits)[0]


def families(text: str, *, open_metrics: bool = False) -> list[tuple[int, bytes, bytes, bytes]]:
    out = []
    for piece in pieces(text.split("\n"), open_metrics=open_metrics, now_ms=NOW_MS):
        for number, _, content in fields(piece.message):
            if number == 3:
                assert isinstance(content, bytes)
                out.append(tuple(part for _, _, part in fields(content)))
    return out  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("line", "labels", "time_ms", "value"),
    [
        ("up 1", {"__name__": "up"}, NOW_MS, 1.0),
        ("up\t1\t-5", {"__name__": "up"}, -5, 1.0),
        ("  up {} +Inf 7  ", {"__name__": "up"}, 7, float("inf")),
        ('a:b{c="d",} 1e-3 7', {"__name__": "a:b", "c": "d"}, 7, 0.001),
        ('a { c = "}{, \\\\ \\" \\n" , d="" } 2 7', {"__name__": "a", "c": '}{, \\ " \n'}, 7, 2.0),
        ('{"my.metric","a b"="c"} 2 7', {"__name__": "my.metric", "a b": "c"}, 7, 2.0),
        ('a{b="\u2028\x85\x0b#"} 2 7\r', {"__name__": "a", "b": "\u2028\x85\x0b#"}, 7, 2.0),
    ],
)
def test_a_line_is_a_sample(line: str, labels: dict[str, str], time_ms: int, value: float) -> None:
    assert samples(line) == [(labels, time_ms, value)]


def test_samples_of_a_series_that_follow_one_another_are_one_message() -> None:
    (piece,) = pieces(["a 1 1", "a 2 2", "", "b 1 1", "a 3 3"], open_metrics=False, now_ms=0)
    assert [number for number, _, _ in fields(piece.message)] == [1, 1, 1]
    assert piece.n_samples == 4
    assert piece.line == 5


def test_open_metrics_has_seconds_and_an_end() -> None:
    text = '# TYPE a counter\na_total{b="# "} 1 1.0005\na_total 2 -1.5 # {t="x"} 3 2\n# EOF\n'
    assert [(time, value) for _, time, value in samples(text, open_metrics=True)] == [(1000, 1.0), (-1500, 2.0)]


def test_metadata_is_said_once_for_a_family_under_the_name_that_the_text_gives_it() -> None:
    text = '# HELP a_total What\\nfor.\n# TYPE a_total counter\na_total 1\n# a comment\n# TYPE "b.c" untyped\n'
    assert families(text) == [(1, b"a_total", b"What\nfor.", b""), (0, b"b.c", b"", b"")]
    assert families("# TYPE a gauge\n# UNIT a s\n# EOF", open_metrics=True) == [(2, b"a", b"", b"s")]


@pytest.mark.parametrize(
    ("text", "open_metrics", "reason"),
    [
        ("a 1\nb", False, "line 2: a value, and a timestamp at most"),
        ("a 1 2 3", False, "line 1: a value, and a timestamp at most"),
        ("a x", False, "'x' is not a number"),
        ("a 1_0", False, "'1_0' is not a number"),
        ("a {count:1} 5", False, "the label count:1 has no value"),
        ("a 1 1.5", False, "'1.5' is not a timestamp in whole milliseconds"),
        ("a 1 9223372036854775808", False, "out of range"),
        ("a 1 1e300\n# EOF", True, "out of range"),
        ("a 1 nan\n# EOF", True, "'nan' is not a timestamp in seconds"),
        ('{a="b"} 1', False, "no metric name"),
        ('a{b="1",b="2"} 1', False, "the label b is there twice"),
        ("a{b} 1", False, "the label b has no value"),
        ("a{b=1} 1", False, "'b=1' is not a label"),
        ('a{b="1"c="2"} 1', False, "is not a label"),
        ("# TYPE a thing", False, "thing is not a type"),
        ("a 1\n", True, "# EOF is missing"),
        ("# EOF\na 1", True, "behind # EOF"),
        ("a 1 1 # x\n# EOF", True, "'x' is not an exemplar"),
        ('a{b="1} 1', False, "line 1"),
    ],
)
def test_what_is_no_line_is_refused_with_its_number(text: str, open_metrics: bool, reason: str) -> None:
    with pytest.raises(BadRequest, match="line ") as caught:
        samples(text, open_metrics=open_metrics)
    assert reason in str(caught.value)


def test_a_long_text_comes_in_pieces_that_say_how_far_they_reach() -> None:
    lines = (f"a 1 {i}" for i in range(PIECE_SAMPLES + 5))
    found = list(pieces(lines, open_metrics=False, now_ms=0))
    assert [(p.n_samples, p.line) for p in found] == [(PIECE_SAMPLES, PIECE_SAMPLES), (5, PIECE_SAMPLES + 5)]
    # Each piece can be read alone, though the series goes on.
    for piece, first in zip(found, (0, PIECE_SAMPLES), strict=True):
        times = range(first, first + piece.n_samples)
        assert list(_samples(piece.message)) == [({"__name__": "a"}, time, 1.0) for time in times]


def test_an_exemplar_begins_at_the_first_mark_and_may_have_others_in_its_labels() -> None:
    text = ['a_total 1 2 # {x="b # c"} 0.5 3', "# EOF"]
    (piece,) = pieces(text, open_metrics=True, now_ms=NOW_MS)
    ((_, _, series),) = fields(piece.message)
    assert isinstance(series, bytes)
    (exemplar,) = [content for number, _, content in fields(series) if number == 3]
    assert exemplar == exemplar_field({"x": "b # c"}, 0.5, 3000).removeprefix(b"\x1a")[1:]


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from('ab{}"\\=,# \t01.eE+-\n_:é'), max_size=40), st.booleans())
def test_any_text_is_read_or_refused(text: str, open_metrics: bool) -> None:
    with contextlib.suppress(BadRequest):
        samples(text, open_metrics=open_metrics)
