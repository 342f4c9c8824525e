"""Backups add objects and pruning deletes them: never both at a time.

Who writes puts `running/…` at the target and keeps it fresh; who prunes puts `pruning/…`. Each puts its own first
and then looks for the other's, so that at least one of them sees the other. What has not been touched for a while
was left by a process that died. Times are compared as the target has them, so clocks here do not matter.

A process that was stopped for so long that others take it for dead (a machine that slept, a target that did not
answer) has lost its turn, and finds that out by `check` before it writes or deletes what counts.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from common.events import EventLog
from storage_node.backup.errors import TargetError
from storage_node.backup.target import Target

RUNNING = "running"
PRUNING = "pruning"
TOUCH_S = 60.0
STALE_S = 900.0
HELD_S = 600.0
"""A turn that was not touched for longer is lost: well before others take it for dead."""
WAIT_S = 600.0
PAUSE_S = 2.0
CLOSE_S = 10.0
"""How long who ends waits for a target that does not answer."""
_log = EventLog("backup")


def _seconds() -> float:
    """A clock that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Turn:
    """An entry at the target that is kept fresh until `close`. Raises TargetError."""

    def __init__(self, target: Target, kind: str, *, clock: Callable[[], float] = _seconds) -> None:
        self._target = target
        self._mine = f"{kind}/{secrets.token_hex(8)}"
        self._clock = clock
        self._lost = False
        self._stop = threading.Event()
        self._touched_s = clock()
        target.put(self._mine, b"")
        self._thread = threading.Thread(target=self._keep, name=f"turn-{kind}", daemon=True)
        self._thread.start()
        self.is_alone = False
        """Whether nobody else had a turn who must not have one at the same time."""

    def others(self, kind: str) -> list[str]:
        """Fresh entries of a kind besides our own. Raises TargetError."""
        own = self._mine.split("/")[0]
        now_s = max((one.modified_s for one in self._target.entries(own) if one.name == self._mine), default=0.0)
        found = self._target.entries(kind)
        return [one.name for one in found if one.name != self._mine and now_s - one.modified_s < STALE_S]

    def check(self) -> None:
        """Raises TargetError if others may have taken this one for dead."""
        if self._lost or self._clock() - self._touched_s > HELD_S:
            self._lost = True
            raise TargetError(
                f"this process did not reach {self._target.where} for more than {HELD_S:g} s; begin anew"
            )

    def close(self) -> None:
        """End the turn; an entry that cannot be deleted within CLOSE_S grows old."""
        self._stop.set()
        self._thread.join(CLOSE_S)

    def _keep(self) -> None:
        while not self._stop.wait(TOUCH_S):
            with suppress(TargetError):
                self.check()
            begun_s = self._clock()
            try:
                self._target.put(self._mine, b"")
                self._touched_s = begun_s
            except TargetError as error:
                _log.warning("backup_turn_not_kept", reason=str(error))
        with suppress(TargetError):
            self._target.delete(self._mine)


@contextmanager
def writing(target: Target, stop: threading.Event, *, wait_s: float = WAIT_S) -> Iterator[Turn]:
    """While objects are relied upon. Waits while somebody prunes, unless stopped. Raises TargetError."""
    turn = Turn(target, RUNNING)
    try:
        deadline = time.monotonic() + wait_s
        while turn.others(PRUNING):
            if time.monotonic() > deadline:
                raise TargetError(f"backups in {target.where} have been being pruned for {wait_s:g} s; ask again")
            if stop.wait(PAUSE_S):
                raise TargetError("the backup was stopped")
        yield turn
    finally:
        turn.close()


@contextmanager
def pruning(target: Target) -> Iterator[Turn]:
    """Its `is_alone` says whether objects may be deleted: nobody writes or prunes. Raises TargetError."""
    turn = Turn(target, PRUNING)
    try:
        turn.is_alone = not turn.others(RUNNING) and not turn.others(PRUNING)
        yield turn
    finally:
        turn.close()
