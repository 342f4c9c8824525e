"""A whole Tabor in one thread, its clock, log and disks simulated, driven by one seeded generator.

    SimSender ──► SimIngestor (real Ingestor) ──► LogClient ──► SimLog
                                                                  │
    checks.py: oracle fed by the log's records      SimNode (real StorageNode) ──► SimDisk

Everything random comes from `World.rng`; a seed always gives the same run.
"""

from __future__ import annotations

import random
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import structlog

from common.store import MAX_TIME_MS, MIN_TIME_MS
from common.tombstones import Tombstone
from ingest.config import IngestConfig
from storage_node import blocks, merging, service, views
from storage_node.partition import PartitionState
from tests.simulation.checks import Checker, random_matchers
from tests.simulation.disk import Folders
from tests.simulation.ingest import HOUR_MS, Ledger, SimIngestor, SimSender, label_sets
from tests.simulation.log import SimLog
from tests.simulation.node import SimNode, config_of

DEFAULT_STEPS = 150
DAY_MS = 24 * HOUR_MS
_EPOCH_MS = 1_790_000_000_000
_LONGEST_REST = 400
_CRASH_AMONG = ("", "disk.read", "disk.writ", "disk.flush", "disk.compact", "log.polled", "rename", "remov")


class Failed(AssertionError):
    """A run that broke a promise; says how to see it again."""


class World:
    """One run. `crash_at`: name of a point of the first node at which it is killed, and at which visit."""

    def __init__(
        self,
        seed: int,
        *,
        note: Callable[[str], None] = lambda text: None,
        crash_at: tuple[str, int] | None = None,
    ) -> None:
        self.seed = seed
        self.note = note
        self.rng = rng = random.Random(seed)
        self._secrets = random.Random(rng.random())
        self._crash_at = crash_at
        self.now_ms = _EPOCH_MS
        self.step = 0
        # What a world may meet differs, so that faults are seen alone and together.
        self.retention_ms = rng.choice((None, None, DAY_MS, 3 * DAY_MS))
        self._cuts_log = rng.random() < 0.3
        self._jumps = rng.random() < 0.3
        self._odd_times = rng.choice((0.0, 0.05, 0.4))
        self._read_errors = rng.choice((0.0, 0.0, 0.05, 0.3))
        self._interleaving = rng.choice((0.0, 0.3))
        self._late_limit = rng.choice((1, 10, 1 << 16))
        self._merge_from = rng.choice((2, 3, 8))
        self._merge_samples = rng.choice((40, 2 << 20))
        self._block_bytes = rng.choice((300, 32 << 10))
        n_partitions = rng.randint(1, 3)
        self.log = SimLog(rng, n_partitions, gaps=rng.choice((0.0, 0.0, 0.1)), faults=rng.choice((0.0, 0.1, 0.4)))
        self._recovering = False
        self._all_nodes: list[SimNode] = []
        self.ledger = Ledger()
        self.series = label_sets(rng.randint(2, 14))
        self.checker = Checker(self.log, self.ledger, self.retention_ms)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Make the machines, in a folder that goes away afterwards."""
        rng = self.rng
        with ExitStack() as stack:
            base = "/dev/shm" if Path("/dev/shm").is_dir() else None
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tabor-sim-", dir=base)))
            self.folders = Folders(rng)
            patch = mock.patch.object
            stack.enter_context(patch(secrets, "randbits", self._secrets.getrandbits))
            stack.enter_context(patch(secrets, "token_bytes", self._secrets.randbytes))
            stack.enter_context(patch(views, "RocksDisk", self.folders.open))
            stack.enter_context(patch(Path, "rename", lambda source, target: self.folders.rename(source, target)))
            stack.enter_context(patch(shutil, "rmtree", self.folders.rmtree))
            stack.enter_context(patch(service, "GATHER_S", 0.0))
            stack.enter_context(patch(merging, "MIN_SEGMENTS", self._merge_from))
            stack.enter_context(patch(merging, "CHUNK_SAMPLES", self._merge_samples))
            stack.enter_context(patch(blocks.encode_blocks, "__defaults__", (self._block_bytes,)))
            defaults = PartitionState.__init__.__kwdefaults__
            stack.enter_context(mock.patch.dict(defaults, late_limit=self._late_limit))
            stack.enter_context(structlog.testing.capture_logs())
            stack.callback(self._kill_all)
            self.nodes = [self._node(name, rng) for name in ("a", "b")]
            self.nodes[0].crash_at = self._crash_at
            self.ingestors = [self._ingestor(i) for i in range(rng.randint(1, 2))]
            self.senders = []
            for _ in range(rng.randint(1, 3)):
                mine = rng.sample(self.series, rng.randint(1, len(self.series)))
                self.senders.append(SimSender(rng, self.ledger, mine))
            yield

    def _node(self, name: str, rng: random.Random, *, archive: bool = False) -> SimNode:
        config = config_of(name, self.folder, rng, self.retention_ms)
        node = SimNode(
            name, self.log, self.folders, config, rng, lambda: self.now_ms / 1000, self.note, archive=archive
        )
        node.interleaving = self._interleaving
        node.meanwhile = self._writes_go_on
        self._all_nodes.append(node)
        return node

    def _kill_all(self) -> None:
        for node in self._all_nodes:
            node.kill()

    def _ingestor(self, number: int) -> SimIngestor:
        rng = self.rng
        config = IngestConfig(
            linger_s=0.0,
            max_active_series=rng.choice((5, 1000, 1000, 1000)),
            max_queued_requests=rng.choice((1, 100)),
            series_idle_s=7200.0,
        )
        first = self.nodes[0]
        with_gate = number == 0 and rng.random() < 0.3

        def gate() -> str | None:
            return first.node.healthy() if with_gate and first.node is not None else None

        return SimIngestor(self.log, config, lambda: self.now_ms, gate)

    # -- a run --------------------------------------------------------------------------------------------------

    def run(self, steps: int = DEFAULT_STEPS) -> None:
        """Run so many steps, then let everything recover and compare everything. Raises Failed."""
        try:
            with self.open():
                for self.step in range(1, steps + 1):
                    self._step()
                self._recover()
                self._compare_all()
        except Exception as error:
            message = (
                f"seed {self.seed} fails at step {self.step}: {error!r}; "
                f"see it with `python -m tests.simulation --seed {self.seed} --steps {self.step} -v`"
            )
            raise Failed(message) from error

    def _step(self) -> None:
        rng = self.rng
        action = rng.choices(_ACTIONS, _WEIGHTS)[0]
        self.note(f"{self.step:4} {action.__name__.strip('_')}")
        action(self)
        self._faults_pass()
        for sender in self.senders:
            sender.look()

    def _alive(self) -> SimNode | None:
        node = self.rng.choice(self.nodes)
        if node.node is None:
            self._start(node)
        return node if node.node is not None else None

    def _start(self, node: SimNode) -> None:
        if node.start():
            # What it found must be the state at the offset of its last checkpoint, whichever that was.
            self.checker.check(node)

    # -- what may happen ----------------------------------------------------------------------------------------

    def _time_passes(self) -> None:
        rng = self.rng
        kind = rng.random()
        if kind < 0.8:
            self.now_ms += rng.randint(1, 8) * 15_000
        else:
            # No append is under way for hours: clients give up after minutes.
            for ingestor in self.ingestors:
                while ingestor.client.n_held:
                    ingestor.client.settle()
            self.now_ms += rng.choice((1, 2, 5, 26)) * HOUR_MS

    def _a_clock_is_set(self) -> None:
        limit_ms = 30 * HOUR_MS if self._jumps else 120_000
        self.rng.choice(self.ingestors).skew_ms = self.rng.randint(-limit_ms, limit_ms)

    def _scrape(self) -> None:
        self.rng.choice(self.senders).scrape(self.now_ms, odd_times=self._odd_times)

    def _write(self) -> None:
        rng = self.rng
        for sender in rng.sample(self.senders, rng.randint(1, len(self.senders))):
            if not sender.n_pending or rng.random() < 0.3:
                sender.scrape(self.now_ms, odd_times=self._odd_times)
            sender.send(rng.choice(self.ingestors))
            if rng.random() < 0.5:
                self._ingest()

    def _writes_go_on(self) -> None:
        """Called between the rounds of a node's threads."""
        if not self._recovering and self.rng.random() < 0.2:
            self._write()
            for sender in self.senders:
                sender.look()

    def _ingest(self) -> None:
        for ingestor in self.ingestors:
            if self.rng.random() < 0.7:
                ingestor.step()
            if self.rng.random() < 0.7:
                ingestor.client.settle()

    def _series_are_deleted(self) -> None:
        rng = self.rng
        high = rng.choice((MAX_TIME_MS, self.now_ms - rng.randint(0, 20) * HOUR_MS // 4))
        low = rng.choice((MIN_TIME_MS, self.now_ms - rng.randint(0, 40) * HOUR_MS // 4))
        if low <= high:
            rng.choice(self.ingestors).delete(Tombstone(tuple(random_matchers(rng, 1)), low, high))

    def _an_ingestor_is_killed(self) -> None:
        self.rng.choice(self.ingestors).kill()

    def _the_broker_stops(self) -> None:
        self.log.down = True

    def _a_stray_record_turns_up(self) -> None:
        self.log.store_stray()

    def _the_log_is_cut(self) -> None:
        if self._cuts_log:
            partition = self.rng.randrange(len(self.log.partitions))
            end = self.log.partitions[partition].high_watermark
            self.log.cut(partition, end if self.rng.random() < 0.3 else self.rng.randint(0, end))

    def _a_node_applies(self) -> None:
        node = self._alive()
        if node is not None:
            node.apply(self.rng.choice((1, 3, 8, 20)))

    def _a_node_merges(self) -> None:
        node = self._alive()
        if node is not None:
            node.merge(self.rng.randint(2, 6))

    def _a_node_is_killed(self) -> None:
        node = self._alive()
        if node is not None:
            node.kill()
            self.note(f"{node.name} is killed")
            self._start(node)

    def _a_node_will_be_killed(self) -> None:
        self._doom(self.rng.choice(self.nodes))

    def _doom(self, node: SimNode) -> None:
        node.crash_among = self.rng.choice(_CRASH_AMONG)
        node.crash_after = self.rng.randint(1, 40 if node.crash_among in ("", "disk.read") else 4)

    def _a_node_stops(self) -> None:
        node = self._alive()
        if node is not None:
            node.stop()

    def _views_are_rebuilt(self) -> None:
        node = self.rng.choice(self.nodes)
        if node.node is not None:
            node.stop()
        if self.rng.random() < 0.5:
            self._doom(node)
        node.rebuild(force=self.rng.random() < 0.5)
        self._start(node)

    def _a_disk_fills_up(self) -> None:
        self.rng.choice(self.nodes).disk_full = True

    def _a_disk_reads_badly(self) -> None:
        self.rng.choice(self.nodes).read_errors = self._read_errors

    def _faults_pass(self) -> None:
        rng = self.rng
        self.log.down = self.log.down and rng.random() < 0.8
        for node in self.nodes:
            node.disk_full = node.disk_full and rng.random() < 0.9
            node.read_errors *= rng.random() < 0.9

    def _a_reader_asks(self) -> None:
        node = self._alive()
        if node is not None:
            self.checker.ask(node, self.rng, self.now_ms)

    def _a_node_is_checked(self) -> None:
        node = self._alive()
        if node is not None:
            self.checker.check(node)

    # -- the end ------------------------------------------------------------------------------------------------

    def _recover(self) -> None:
        """No more faults: everything that is under way is finished, and every node reads the log to its end."""
        self.note("recovery")
        self._recovering = True
        self.log.down = False
        self.log.faults = 0.0
        for node in self.nodes:
            node.disk_full, node.read_errors, node.crash_after = False, 0.0, None
        self._catch_up(self.nodes)
        self._drain()
        # After more than the interval of declarations every living ingestor says again what its refs stand for.
        self.now_ms += 2 * HOUR_MS
        for ingestor in self.ingestors:
            for sender in self.senders:
                sender.scrape(self.now_ms, odd_times=0.0, every_series=True)
                self._drain(ingestor)
        self._catch_up(self.nodes)

    def _drain(self, ingestor: SimIngestor | None = None) -> None:
        for _ in range(_LONGEST_REST):
            for ready in self.ingestors:
                ready.drain()
            for sender in self.senders:
                sender.look()
                sender.send(ingestor or self.rng.choice(self.ingestors))
            if not any(sender.n_pending for sender in self.senders):
                return
        raise AssertionError("requests are not answered")

    def _catch_up(self, nodes: list[SimNode]) -> None:
        for node in nodes:
            for _ in range(_LONGEST_REST):
                if node.node is None:
                    self._start(node)
                    continue
                self.now_ms += 5_000
                node.apply(node.patience)
                if node.node is not None and self.checker.is_caught_up(node):
                    break
            else:
                raise AssertionError(f"{node.name} does not reach the end of the log")
            assert node.node.healthy() is None, node.node.healthy()
            assert node.node.progress().ready

    def _compare_all(self) -> None:
        """Both replicas, and a fresh one that reads the whole log in one go, hold the same: what was written."""
        self.note("comparison")
        fresh = self._node("fresh", random.Random(0), archive=True)
        nodes = [fresh, *self.nodes]
        for node in nodes:
            checked = False
            while not checked:
                # It may still be killed, once.
                self._catch_up([node])
                self.checker.check(node, with_digest=True)
                if node.node is not None:
                    self.checker.check_acknowledged(node, strict=not self._jumps and not self._cuts_log)
                checked = node.node is not None
            node.merge(6)
        self._catch_up(nodes)
        self.checker.check_equal(nodes)
        if not self._cuts_log:
            for node in self.nodes:
                node.stop()
                node.rebuild(force=False)
                self._catch_up([node])
            self.checker.check_equal(nodes)
        for node in nodes:
            node.stop()
            assert node.node is None


_WEIGHTED: dict[Callable[[World], None], float] = {
    World._time_passes: 6,
    World._a_clock_is_set: 1.5,
    World._scrape: 3,
    World._write: 24,
    World._ingest: 12,
    World._series_are_deleted: 1,
    World._an_ingestor_is_killed: 0.7,
    World._the_broker_stops: 1,
    World._a_stray_record_turns_up: 1,
    World._the_log_is_cut: 2,
    World._a_node_applies: 12,
    World._a_node_merges: 3,
    World._a_node_is_killed: 1.5,
    World._a_node_will_be_killed: 4,
    World._a_node_stops: 0.7,
    World._views_are_rebuilt: 1,
    World._a_disk_fills_up: 1,
    World._a_disk_reads_badly: 2,
    World._a_reader_asks: 3,
    World._a_node_is_checked: 1,
}
_ACTIONS = list(_WEIGHTED)
_WEIGHTS = list(_WEIGHTED.values())
