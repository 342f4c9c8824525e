"""Progress for people: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType

from tabor import supervisor

_LINE_EVERY_S = 5.0
_TELL_EVERY_S = 1.0


_write: Callable[[str], None] | None = None


def say(text: str) -> None:
    """A line for people, on standard error: standard output is for results."""
    if _write is not None:
        _write(text)
    else:
        print(text, file=sys.stderr, flush=True)


def say_by(write: Callable[[str], None] | None) -> None:
    """Have lines for people written by something else: where all of standard error is to be events."""
    global _write
    _write = write


class Bar:
    """One task from 0 to `total`; `note` is free text behind the bar."""

    def __init__(self, label: str, *, total: int | None = None) -> None:
        self._label = label
        self._total = total
        self._last_line = time.monotonic()
        self._told_at = -_TELL_EVERY_S
        self._rich = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

            self._rich = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._rich.add_task(label, total=total, note="")

    def __enter__(self) -> Bar:
        if self._rich is not None:
            self._rich.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rich is not None:
            self._rich.stop()

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        if total is not None:
            self._total = total
        self._tell_supervisor(done, note)
        if self._rich is not None:
            self._rich.update(self._task, completed=done, total=self._total, note=note)
        elif time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self._last_line = time.monotonic()
            say(self._line(done, note))

    def _line(self, done: int, note: str) -> str:
        share = f"{100 * done / self._total:.0f} %" if self._total else str(done)
        return f"{self._label}: {share} {note}".rstrip()

    def _tell_supervisor(self, done: int, note: str) -> None:
        if time.monotonic() - self._told_at >= _TELL_EVERY_S:
            self._told_at = time.monotonic()
            supervisor.starting(self._line(done, note))
