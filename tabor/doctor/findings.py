"""What a check found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from common.errors import TaborError


class Level(Enum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """about: what was looked at. text: how it is. advice: what to do; '' if nothing is to be done."""

    about: str
    level: Level
    text: str
    advice: str = ""


def ok(about: str, text: str) -> Finding:
    return Finding(about, Level.OK, text)


def warning(about: str, text: str, advice: str) -> Finding:
    return Finding(about, Level.WARNING, text, advice)


def problem(about: str, text: str, advice: str) -> Finding:
    return Finding(about, Level.PROBLEM, text, advice)


def graded(about: str, text: str, advice: str, *, bad: bool, poor: bool = False) -> Finding:
    """A problem if it is bad, a warning if it is poor, else all right."""
    if bad:
        return problem(about, text, advice)
    return warning(about, text, advice) if poor else ok(about, text)


def found_by(about: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """What a check finds; one that cannot be made is a finding, too."""
    found: list[Finding] = []
    try:
        found.extend(check())
    except (TaborError, OSError) as error:
        found.append(problem(about, str(error), "mend that, then run `tabor doctor` again"))
    return found
