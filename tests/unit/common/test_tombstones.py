"""The bytes of a tombstone."""

from __future__ import annotations

import json

import pytest

from common.attachments import MAX_BYTES
from common.store import MAX_TIME_MS, MIN_TIME_MS, Matcher, MatchOp
from common.tombstones import Tombstone

JOB = Matcher(MatchOp.EQUAL, "job", "größe")
WHOLE = Tombstone((JOB, Matcher(MatchOp.NOT_REGEX, "i", "[3-9]")), MIN_TIME_MS, MAX_TIME_MS)


def test_the_bytes_are_those_of_the_format_page() -> None:
    assert Tombstone((JOB,), -1, 2).encode() == (
        '{"matchers":[["=","job","größe"]],"min_time_ms":-1,"max_time_ms":2}'.encode()
    )


def test_what_was_encoded_comes_back() -> None:
    assert Tombstone.decode(WHOLE.encode()) == WHOLE


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"matchers": [], "min_time_ms": 0, "max_time_ms": 0},
        {"matchers": [["=", "a"]], "min_time_ms": 0, "max_time_ms": 0},
        {"matchers": [["==", "a", "b"]], "min_time_ms": 0, "max_time_ms": 0},
        {"matchers": [["=", "a", 1]], "min_time_ms": 0, "max_time_ms": 0},
        {"matchers": [["=", "a", "b"]], "min_time_ms": 1, "max_time_ms": 0},
        {"matchers": [["=", "a", "b"]], "min_time_ms": False, "max_time_ms": True},
        {"matchers": [["=", "a", "b"]], "min_time_ms": 0.5, "max_time_ms": 1},
        {"matchers": [["=", "a", "b"]], "min_time_ms": 0, "max_time_ms": MAX_TIME_MS + 1},
        {"matchers": "ab", "min_time_ms": 0, "max_time_ms": 1},
        {"matchers": [["=", "a", "b"]], "min_time_ms": 0},
    ],
)
def test_what_is_none_is_refused(content: object) -> None:
    with pytest.raises(ValueError, match="a tombstone"):
        Tombstone.decode(json.dumps(content).encode())


def test_cut_at_any_byte_it_is_refused() -> None:
    data = WHOLE.encode()
    for end in range(len(data)):
        with pytest.raises(ValueError, match="a tombstone cannot be read"):
            Tombstone.decode(data[:end])


def test_a_selector_that_fits_no_row_is_refused() -> None:
    with pytest.raises(ValueError, match=f"at most {MAX_BYTES}"):
        Tombstone((Matcher(MatchOp.EQUAL, "job", "x" * MAX_BYTES),), 0, 1).encode()
