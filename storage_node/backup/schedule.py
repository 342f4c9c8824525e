"""Backups at regular times, from within a node.

Time is cut into slots of --backup-every; the backup of a slot has the slot's start as its name, so that the nodes
of a cluster add to the same backup without asking one another. Whoever starts within a slot does what is missing.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from common.errors import TaborError
from common.events import EventLog
from storage_node.backup.manifest import run_at, runs_of
from storage_node.backup.pruning import prune
from storage_node.backup.source import of_this_process
from storage_node.backup.target import Target
from storage_node.backup.writing import Progress, Stop, Writer
from storage_node.copies import Copies
from storage_node.errors import NotHeld

RETRY_S = 60.0
"""Pause after a backup that failed."""
CLOSE_S = 10.0
"""How long who ends waits for a request to the target."""
LOOK_S = 5.0
"""How often to look whether a slot has begun, or something has become this node's part."""
_log = EventLog("backup")


@dataclass(frozen=True, slots=True)
class BackupPlan:
    """target: where to. every_s: how often. keep: whole backups that are kept; older ones are pruned."""

    target: Target
    every_s: float
    keep: int


class Schedule:
    """Backs up what is this node's to back up. `start` it once the node has started, `close` it before the node.

    partitions: those whose backup is this node's to make, as of now. prunes: whether it is the one that prunes.
    """

    def __init__(
        self,
        plan: BackupPlan,
        copies: Copies,
        node: str,
        n_partitions: int,
        partitions: Callable[[], Iterable[int]],
        *,
        prunes: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.time,
        look_s: float = LOOK_S,
        retry_s: float = RETRY_S,
    ) -> None:
        self._plan = plan
        self.every_s = plan.every_s
        self._copies = copies
        self._node = node
        self._n_partitions = n_partitions
        self._partitions = partitions
        self._prunes = prunes
        self._clock = clock
        self._look_s = look_s
        self._retry_s = retry_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{node}-backup", daemon=True)
        self._written: tuple[str, set[int]] = "", set()
        self._pruned_s = 0.0
        self.last_success_s = 0.0
        """Unix seconds of the start of the last slot whose backup this node has done its part of."""
        self.last_seconds = 0.0
        self.sent_bytes = 0
        self.kept_bytes = 0
        self.failures: Counter[str] = Counter()
        """By name of the error."""

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Give up what is under way; the next start goes on with it.

        A target that does not answer is not waited for: once told to stop, the thread touches nothing else.
        """
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        pause_s = 0.0
        while not self._stop.wait(pause_s):
            slot_s = self._clock() // self._plan.every_s * self._plan.every_s
            pause_s = self._look_s
            try:
                self._back_up(slot_s)
                if slot_s != self._pruned_s and self._prunes() and self._prune():
                    self._pruned_s = slot_s
            except Stop:
                return
            except (TaborError, OSError) as error:
                if self._stop.is_set():
                    return
                self.failures[type(error).__name__] += 1
                where = self._plan.target.where
                _log.error("backup_failed", backup=run_at(slot_s), target=where, reason=str(error))
                pause_s = min(self._retry_s, self.every_s)

    def _back_up(self, slot_s: float) -> None:
        """Write what is missing of this node's part, which may grow while the slot lasts: nodes leave."""
        run, begun_s = run_at(slot_s), time.monotonic()
        mine = set(self._partitions())
        of_run, written = self._written
        if of_run != run or not mine <= written:
            written = set(runs_of(self._plan.target).get(run, ()))
        missing = sorted(mine - written)
        if missing:
            sent_bytes = self.sent_bytes
            self._write(run, missing)
            _log.info(
                "backup_written", backup=run, partitions=len(missing), sent_bytes=self.sent_bytes - sent_bytes
            )
        self._written = run, written | mine
        if missing or self.last_success_s != slot_s:
            self.last_success_s, self.last_seconds = slot_s, time.monotonic() - begun_s

    def _write(self, run: str, partitions: list[int]) -> None:
        before_sent, before_kept = self.sent_bytes, self.kept_bytes

        def note(done: Progress) -> None:
            self.sent_bytes, self.kept_bytes = before_sent + done.sent_bytes, before_kept + done.kept_bytes

        with Writer(self._plan.target, run, self._n_partitions, stop=self._stop, progress=note) as writer:
            for partition in partitions:
                if self._stop.is_set():
                    raise Stop
                # What has gone to another node meanwhile is that one's part then.
                with suppress(NotHeld):
                    writer.write(of_this_process(self._copies, self._node, partition))

    def _prune(self) -> bool:
        """Forget what is too old; False if others are writing, so that it is to be done again."""
        pruned = prune(self._plan.target, self._plan.keep)
        if pruned.forgotten or pruned.objects:
            about = {"objects": pruned.objects, "bytes": pruned.size_bytes}
            _log.info("backups_pruned", backups=len(pruned.forgotten), **about)
        return pruned.freed
