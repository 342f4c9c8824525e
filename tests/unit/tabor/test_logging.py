"""Standard error is what --log-format says, whatever is said, by whomever."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SAY = """
import logging, sys
from common.events import EventLog
from common import request_ids
from tabor.logging import configure
from tabor.progress import say
configure(*sys.argv[1:])
log = EventLog("part")
log.debug("detail")
request_ids.current.set("id-1")
log.warning("thing_failed", reason='a "b"\\n=c', n=3, some={"a": [1]}, none=None, is_bad=True, odd="\\udc80")
say("for people")
logging.getLogger("library").warning("went %s", "wrong")
try:
    raise ValueError("no")
except ValueError:
    log.exception("broke")
"""


def lines(*arguments: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", SAY, *arguments], capture_output=True, text=True, check=True)
    return done.stderr.splitlines()


def test_json_is_one_object_a_line_for_all_that_is_said() -> None:
    failed, said, library, broke = (json.loads(line) for line in lines("json", "info"))
    assert failed.pop("timestamp").endswith("Z")
    assert failed == {
        "event": "thing_failed",
        "part": "part",
        "level": "warning",
        "request_id": "id-1",
        "reason": 'a "b"\n=c',
        "n": 3,
        "some": {"a": [1]},
        "none": None,
        "is_bad": True,
        "odd": "\udc80",
    }
    assert (said["event"], said["text"]) == ("said", "for people")
    assert (library["part"], library["level"], library["text"]) == ("library", "warning", "went wrong")
    assert broke["exception"][0]["exc_value"] == "no"


def test_logfmt_is_one_line_of_pairs_with_what_is_odd_in_quotes() -> None:
    failed, said, library, broke = lines("logfmt", "info")
    assert failed.startswith("timestamp=2")
    pairs = r'level=warning part=part event=thing_failed reason="a \"b\"\n=c" n=3 some="{\"a\": [1]}" none= '
    assert pairs + r'is_bad=true odd="\\udc80" request_id=id-1' in failed
    assert "event=said" in said
    assert 'text="for people"' in said
    assert "level=warning part=library event=library" in library
    assert 'exception="[{' in broke


def test_auto_elsewhere_than_on_a_terminal_is_text_for_people_and_events_as_json() -> None:
    failed, said, library, _ = lines("auto", "info")
    assert json.loads(failed)["event"] == "thing_failed"
    assert said == "for people"
    assert library == "WARNING library: went wrong"


@pytest.mark.parametrize(("level", "events"), [("debug", 5), ("warning", 4), ("error", 2)])
def test_events_below_the_level_are_left_out_but_not_what_is_said(level: str, events: int) -> None:
    assert len(lines("json", level)) == events


@pytest.mark.parametrize(
    "text", ["", "a b", "a=b", 'a"b', "a\\b", "\x00\x1b[31m", "plain", "ü", "\u2028", "tab\t"]
)
def test_logfmt_values_are_read_back_as_they_were(text: str) -> None:
    from tabor.logging import _logfmt_value

    written = _logfmt_value(text)
    assert "\n" not in written
    assert written.isprintable() or "\u2028" in written
    if written.startswith('"'):
        assert written.endswith('"')
        assert json.loads(written.replace("\\x", "\\u00")) == text
    else:
        assert written == text


def test_a_log_that_cannot_be_written_stops_nothing() -> None:
    code = (
        "from common.events import EventLog\n"
        "from tabor.logging import configure\n"
        "configure('json', 'info')\n"
        "EventLog('part').error('disk_failed')\n"
        "print('goes on')"
    )
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=full, text=True)
    assert done.stdout == "goes on\n"
