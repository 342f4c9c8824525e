"""A storage node in the simulation: the real one, stepped by hand instead of by its threads."""

from __future__ import annotations

import bisect
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import LogUnavailable, StartupError
from storage_node import keys
from storage_node.config import NodeConfig
from storage_node.errors import DiskError
from storage_node.replay import replay
from storage_node.service import REOPEN_AFTER, StorageNode
from tests.simulation.disk import Crash, Folders, SimDisk
from tests.simulation.log import LogClient, SimLog


class Steps:
    """Takes the place of the event that stops the node's threads: lets a loop run a number of rounds.

    meanwhile: called before each round.
    """

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self.left = 0
        self._meanwhile = meanwhile

    def is_set(self) -> bool:
        self.left -= 1
        if self.left >= 0:
            self._meanwhile()
        return self.left < 0

    def wait(self, timeout_s: float | None = None) -> bool:
        return self.is_set()

    def set(self) -> None:
        self.left = 0


class SimNode:
    """One replica: its data folder, its views while it is alive, and how often it reached each point.

    crash_after: number of points after which it is killed, of those whose names start with `crash_among`.
    crash_at: a point, and at which visit.
    """

    def __init__(
        self,
        name: str,
        log: SimLog,
        folders: Folders,
        config: NodeConfig,
        rng: random.Random,
        clock_s: Callable[[], float],
        note: Callable[[str], None],
        *,
        archive: bool = False,
    ) -> None:
        self.name = name
        self.alive = False
        self.disk_full = False
        self.read_errors = 0.0
        self.crash_after: int | None = None
        self.crash_among = ""
        self.crash_at: tuple[str, int] | None = None
        self.visits: Counter[str] = Counter()
        self.crashes: Counter[str] = Counter()
        self.interleaving = 0.0
        self.meanwhile: Callable[[], None] = lambda: None
        self._log = log
        self._archive = archive
        self._client = LogClient(log, reach=self.reach, archive=archive, delivered=self._delivered)
        self._opened: SimDisk | None = None
        self._folders = folders
        self._config = config
        self._rng = rng
        self._clock_s = clock_s
        self._note = note
        self._activity = ["idle"]
        self._durable: list[int] = [0] * len(log.partitions)
        self.node: StorageNode | None = None

    # -- what may happen to it ----------------------------------------------------------------------------------

    def reach(self, point: str) -> None:
        """Raises Crash if the process is to be killed here."""
        where = f"{self._activity[-1]}:{point}"
        self.visits[where] += 1
        if self.crash_after is not None and point.startswith(self.crash_among):
            self.crash_after -= 1
        if self.crash_after == 0 or self.crash_at == (where, self.visits[where]):
            self.crash_after = None
            self.crashes[where] += 1
            raise Crash(where)

    def opened(self, disk: SimDisk, before: SimDisk | None) -> None:
        """Views begin at what their disk has: later records, of an earlier life, are no part of their history."""
        for partition in range(len(self._log.partitions)):
            meta = json.loads(disk.disk.get(keys.partition_meta(partition)) or b"{}")
            offsets = before.delivered[partition] if before is not None else []
            disk.delivered.append(offsets[: bisect.bisect_left(offsets, meta.get("next_offset", 0))])
        self._opened = disk

    def _delivered(self) -> list[list[int]]:
        """History of the views at work: those of the node, or those that a replay has opened last."""
        if self.node is not None and self.node._views is not None:
            return self._disk_of(self.node).delivered
        assert self._opened is not None
        return self._opened.delivered

    def _disk_of(self, node: StorageNode) -> SimDisk:
        disk = node.views.disk
        assert isinstance(disk, SimDisk)
        return disk

    def interleave(self) -> None:
        """While a merge or a read waits for the disk and holds no lock, the apply thread goes on."""
        activity = self._activity[-1]
        if activity not in ("merge", "read") or self._rng.random() >= self.interleaving:
            return
        node = self.node
        if node is None or node._views is None:
            return
        for shard in node.views.shards.values():
            if shard.lock.locked() or shard.state.index._lock._is_owned():  # type: ignore[attr-defined]
                return
        with self._doing("apply"):
            self._run(node, node._apply, self._rng.randint(1, 2))
        if activity == "read" and self._rng.random() < 0.5:
            with self._doing("merge"):
                self._run(node, node._merge, 2)

    @contextmanager
    def _doing(self, activity: str) -> Iterator[None]:
        self._activity.append(activity)
        depth = len(self._activity)
        active = self._folders.active
        self._folders.active = self
        try:
            yield
        except Crash as crash:
            if depth > 2:
                raise
            self._note(f"{self.name} is killed at {crash}")
            self.kill()
        finally:
            del self._activity[depth - 1 :]
            self._folders.active = active

    def kill(self) -> None:
        """SIGKILL: the views are gone from memory, unflushed batches are lost from the last one back."""
        self.alive = False
        self.crash_after = None
        node, self.node = self.node, None
        if node is not None:
            if node._views is not None:
                durable = node.views.durable_offsets.values()
                self._durable = [max(pair) for pair in zip(self._durable, durable, strict=True)]
            node._folder_lock.close()
        self._folders.lose_unflushed(self._config.data_dir)

    # -- its life -----------------------------------------------------------------------------------------------

    def start(self) -> bool:
        """Start; says whether it could. After a kill it must be at an offset that was durable, or beyond."""
        assert self.node is None
        self.alive = True
        node = StorageNode(self._client, self._config, clock=self._clock_s)
        node._stop = Steps(lambda: self.meanwhile())  # type: ignore[assignment]
        self.node = node
        with self._doing("start"):
            try:
                node.start()
            except (StartupError, LogUnavailable) as error:
                if not (self.read_errors or self.disk_full or isinstance(error, LogUnavailable)):
                    raise
                self._note(f"{self.name} does not start: {error}")
                self.alive, self.node = False, None
                return False
        if not self.alive:
            return False
        for thread in node._threads:
            thread.join()
        node._threads = []
        saved = node.views.saved_offsets().values()
        for partition, (offset, durable) in enumerate(zip(saved, self._durable, strict=True)):
            assert offset >= durable, (
                f"partition {partition} of {self.name} went back to {offset}; {durable} was durable"
            )
        self._note(f"{self.name} starts at {node.views.positions()}")
        return True

    def stop(self) -> None:
        """SIGTERM: if the disk takes it, everything that was applied is durable."""
        with self._doing("stop"):
            assert self.node is not None
            views = self.node.views
            positions = views.positions()
            self.node.close()
            if not self.disk_full and not self.read_errors:
                assert views.durable_offsets == positions, f"{self.name} stopped without saving all of {positions}"
            self._durable = [max(pair) for pair in zip(self._durable, views.durable_offsets.values(), strict=True)]
            self.alive, self.node = False, None

    def apply(self, rounds: int) -> None:
        """Rounds of the apply thread."""
        with self._doing("apply"):
            assert self.node is not None
            self._run(self.node, self.node._apply, rounds)

    def merge(self, rounds: int) -> None:
        """Rounds of the merge thread."""
        with self._doing("merge"):
            assert self.node is not None
            self._run(self.node, self.node._merge, rounds)

    def _run(self, node: StorageNode, loop: Callable[[], None], rounds: int) -> None:
        steps = node._stop
        assert isinstance(steps, Steps)
        before, steps.left = steps.left, rounds
        loop()
        steps.left = before

    @contextmanager
    def reading(self, *, calmly: bool = False) -> Iterator[StorageNode]:
        """For what the caller does as a reader; a crash ends it.

        calmly: nothing else happens meanwhile, and the disk reads well.
        """
        disturbances = self.read_errors, self.interleaving
        if calmly:
            self.read_errors = self.interleaving = 0.0
        try:
            with self._doing("read"):
                assert self.node is not None
                yield self.node
        finally:
            self.read_errors, self.interleaving = disturbances

    def rebuild(self, *, force: bool) -> None:
        """`tabor replay` on the stopped node; may be killed."""
        assert self.node is None
        self.alive = True
        before = self._folders.number(self._config.data_dir / "views")
        ends = [log.high_watermark for log in self._log.partitions]
        cut = any(log.start for log in self._log.partitions) and not self._archive
        with self._doing("replay"):
            try:
                for replayed in replay(self._client, self._config, force=force):
                    same = replayed.digest_before in (None, replayed.digest_after)
                    assert same or cut, f"the replay of partition {replayed.partition} has another digest"
                self._note(f"{self.name} is rebuilt")
            except (LogUnavailable, DiskError, StartupError) as error:
                if not (self.read_errors or self.disk_full or self._log.down or (cut and not force)):
                    raise
                self._note(f"{self.name} is not rebuilt: {error}")
        self.alive = False
        found = self._views_found()
        if found != before:
            # What takes the place of the old views is complete. Views that cannot be read are removed at once.
            self._durable = ends if found is not None else [0] * len(ends)

    def _views_found(self) -> int | None:
        """Which views the next start will find."""
        data_dir = self._config.data_dir
        numbers = [self._folders.number(data_dir / name) for name in ("views.ready", "views")]
        return numbers[0] if numbers[0] is not None else numbers[1]

    # -- what it should hold ------------------------------------------------------------------------------------

    def history(self, partition: int, next_offset: int) -> list[int]:
        """Offsets of the records that its views must be made of, below `next_offset`."""
        delivered = self._delivered()[partition]
        return delivered[: bisect.bisect_left(delivered, next_offset)]

    @property
    def is_open(self) -> bool:
        """Whether its views are open; they are not after an attempt to open them anew has failed."""
        if self.node is None or self.node._views is None:
            return False
        return not self._disk_of(self.node).closed

    @property
    def patience(self) -> int:
        """Rounds within which a failed disk is opened anew; one that fails takes two."""
        return 2 * REOPEN_AFTER + 2


def config_of(name: str, folder: Path, rng: random.Random, retention_ms: int | None) -> NodeConfig:
    """Settings that differ between replicas in everything that must not matter."""
    return NodeConfig(
        name=name,
        data_dir=folder / name,
        log_identity="simulated",
        retention_ms=retention_ms,
        head_samples=rng.choice((20, 100, 500)),
        checkpoint_age_s=rng.choice((30.0, 600.0, 7200.0)),
        flush_age_s=rng.choice((0.0, 60.0, 3600.0)),
        retry_s=0.0,
    )
