"""SIGINT and SIGTERM as an exception, for commands that have something to clear away."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from tabor.progress import say


class Stopped(BaseException):
    """A signal asked to stop; no error, so that nobody catches it as one."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.name = signal.Signals(number).name
        self.exit_status = 128 + number


@contextlib.contextmanager
def stoppable(saying: str | None = None) -> Iterator[None]:
    """Raise Stopped in the body at the first signal; those that follow do not disturb the clearing away.

    saying: what is said then, behind the name of the signal.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)

    def stop(number: int, _: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

    before = [(number, signal.signal(number, stop)) for number in numbers]
    try:
        yield
    except Stopped as stopped:
        if saying is not None:
            say(f"stopped by {stopped.name}; {saying}")
        raise
    finally:
        for number, handler in before:
            signal.signal(number, handler)
