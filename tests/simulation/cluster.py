"""A cluster of many nodes in one thread and from a seed: what nodes decide, on news that are late or do not come.

The real parts are the fold over the control topic (`Members`), placement, what a node decides (`assignment`), and
how a query chooses its nodes (`Gathering`). Simulated are the topic, which everybody reads up to a position of his
own, the log, of which a node has the records below an offset, and the network: a node that is cut off reads and
sends nothing.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from common.control.events import (
    Event,
    EventKind,
    Layout,
    Presence,
    Record,
    Seat,
    encode_record,
    key_of,
    parse_record,
)
from common.control.members import LIVE_S, Member, Members
from query.gathering import Gathering
from storage_node.assignment import Targets, decide, long_silent, sources_of

GRACE_S = 5.0
HEARTBEAT_S = 2.0
REBUILD_AFTER_S = 30.0
REPLICAS = 3


@dataclass(slots=True)
class Reader:
    """Somebody who follows the control topic, up to `position`."""

    members: Members = field(default_factory=Members)
    position: int = 0


@dataclass(slots=True)
class Node:
    """held: next offset of each partition. wanted: offsets at which they count as whole; both are on its disk."""

    name: str
    reader: Reader = field(default_factory=Reader)
    held: dict[int, int] = field(default_factory=dict)
    wanted: dict[int, int] = field(default_factory=dict)
    spare_since_s: dict[int, float] = field(default_factory=dict)
    alive: bool = True
    connected: bool = True
    steady_since_s: float | None = None
    sent_s: float = -HEARTBEAT_S
    life: int = 0

    def whole(self) -> set[int]:
        return {p for p, offset in self.held.items() if offset >= self.wanted[p]}


class ClusterSim:
    """One run. Every step checks that no answer is wrong, `settle` that everything comes to where it belongs."""

    def __init__(self, seed: int, *, n_nodes: int, n_partitions: int) -> None:
        self.rng = random.Random(seed)
        self.now_s = 1000.0
        self.topic: list[tuple[str, bytes | None, float]] = []
        self.ends = [0] * n_partitions
        self.layout = Layout(n_partitions, 1, REPLICAS)
        self._append(self.layout)
        self.nodes: dict[str, Node] = {}
        self.query = Reader()
        self.wiped_s = -1e9
        self.answered = self.failed = 0
        for number in range(n_nodes):
            self._join(f"n{number}")
        self.settle()

    # What happens.

    def step(self) -> None:
        """Something happens."""
        self.now_s += self.rng.choice((0.1, 0.5, 1.0))
        actions = [
            (12, self._somebody_acts),
            (8, self._write),
            (8, self._ask),
            (1, self._crash),
            (6, self._restart),
            (0.5, self._cut_off),
            (4, self._connect),
            (0.3, self._drain),
            (0.3, lambda: self._join(f"n{len(self.nodes)}")),
            (0.3, self._wipe),
            (0.3, self._compact),
        ]
        self.rng.choices([action for _, action in actions], [weight for weight, _ in actions])[0]()

    def settle(self) -> None:
        """Everybody is up and connected, and after a while each partition is where it belongs, and only there."""
        for node in self.nodes.values():
            node.alive = node.connected = True
        rest_since_s = None
        for _ in range(600):
            self.now_s += 0.5
            for node in self.nodes.values():
                self._act(node, late=False)
            if not self._is_settled():
                rest_since_s = None
            elif rest_since_s is None:
                rest_since_s = self.now_s
            elif self.now_s - rest_since_s > 2 * HEARTBEAT_S:
                break
        self._read(self.query, len(self.topic))
        assert self._is_settled(), {p: self._holders(p) for p in range(len(self.ends))}
        assert self._ask_once() is not None, "in a cluster at rest a query is answered"

    def _is_settled(self) -> bool:
        seats = self._truth().seats
        targets = Targets(self.layout, seats)
        return all(
            set(self._holders(p)) == set(targets.of(p))
            and all(self.nodes[name].held[p] == end for name in targets.of(p))
            for p, end in enumerate(self.ends)
        )

    # Actions.

    def _somebody_acts(self) -> None:
        self._act(self.rng.choice(list(self.nodes.values())), late=True)

    def _act(self, node: Node, *, late: bool) -> None:
        if not node.alive or not node.connected:
            return
        self._read(node.reader, len(self.topic), late=late)
        self._apply(node)
        if self.now_s - node.sent_s >= HEARTBEAT_S:
            node.sent_s = self.now_s
            self._claim(node)
            self._append(self._heartbeat(node))
        live = self._live(node.reader)
        decision = decide(node.name, Targets(self.layout, node.reader.members.seats), live, node.held.keys())
        for partition in sorted(decision.hold - node.held.keys())[: self.rng.randint(0, 4)]:
            self._acquire(node, partition, live)
        node.spare_since_s = {p: node.spare_since_s.get(p, self.now_s) for p in decision.spare}
        for partition, since_s in list(node.spare_since_s.items()):
            own = node.reader.members.by_name.get(node.name)
            if self.now_s - since_s >= GRACE_S and own is not None and partition not in own.applied:
                self._drop(node, partition)
        self._mark_silent(node, live)

    def _apply(self, node: Node) -> None:
        for partition, offset in node.held.items():
            node.held[partition] = min(self.ends[partition], offset + self.rng.randint(0, 5))

    def _acquire(self, node: Node, partition: int, live: dict[str, Member]) -> None:
        offset = 0
        for member in sources_of(partition, node.name, live):
            source = self.nodes[member.name]
            if source.alive and source.connected and partition in source.held:
                offset = source.held[partition]
                break
        node.held[partition] = offset
        node.wanted[partition] = self.ends[partition]

    def _drop(self, node: Node, partition: int) -> None:
        del node.held[partition], node.wanted[partition], node.spare_since_s[partition]
        copies = [name for name, one in self.nodes.items() if partition in one.whole()]
        lost = 2 if self.now_s - self.wiped_s < 2 * LIVE_S else 0
        assert len(copies) >= REPLICAS - lost, f"{node.name} left {len(copies)} copies of partition {partition}"

    def _mark_silent(self, node: Node, live: dict[str, Member]) -> None:
        if node.name not in live:
            node.steady_since_s = None
            return
        node.steady_since_s = self.now_s if node.steady_since_s is None else node.steady_since_s
        if self.now_s - node.steady_since_s < LIVE_S:
            return
        members = node.reader.members
        silent_s = {name: self.now_s - one.heard_s for name, one in members.by_name.items()}
        for seat in long_silent(node.name, members.seats, live, silent_s, REBUILD_AFTER_S):
            self._append(seat)

    def _claim(self, node: Node) -> None:
        members = node.reader.members
        seat = members.seat_of(node.name)
        if seat is None:
            self._append(Seat(members.free_ordinal(), node.name, Presence.IN))
        elif seat.presence is Presence.AWAY:
            self._append(Seat(seat.ordinal, node.name, Presence.IN))
        for spare in members.spare_seats(node.name):
            self.topic.append((key_of(spare), None, self.now_s))

    def _write(self) -> None:
        for partition in range(len(self.ends)):
            self.ends[partition] += self.rng.randint(0, 3)

    def _ask(self) -> None:
        self._read(self.query, len(self.topic), late=True)
        if self._ask_once() is None:
            self.failed += 1
        else:
            self.answered += 1

    def _ask_once(self) -> dict[int, int] | None:
        """A strong read of all partitions: the offset at which each was read, or None if that was not possible."""
        required = list(self.ends)
        members = self._live(self.query)
        candidates = {}
        for partition in range(len(required)):
            names = [name for name, member in members.items() if member.has(partition)]
            candidates[partition] = self.rng.sample(names, len(names))
        gathering = Gathering(candidates)
        running, read_at = gathering.start(), dict[int, int]()
        while running:
            attempt = running.pop(self.rng.randrange(len(running)))
            node = self.nodes[attempt.node]
            reachable = node.alive and node.connected
            # A node has some time to catch up, which may not suffice.
            for partition in attempt.partitions if reachable and self.rng.random() < 0.9 else ():
                if partition in node.held:
                    node.held[partition] = max(node.held[partition], required[partition])
            if reachable and all(node.held.get(p, -1) >= required[p] for p in attempt.partitions):
                if gathering.answered(attempt):
                    for partition in attempt.partitions:
                        assert partition not in read_at, f"partition {partition} is counted twice"
                        read_at[partition] = node.held[partition]
            else:
                running += gathering.failed(attempt)
        if not gathering.done:
            return None
        assert all(read_at[p] >= required[p] for p in range(len(required))), "a strong read missed something"
        return read_at

    def _crash(self) -> None:
        node = self.rng.choice(list(self.nodes.values()))
        node.alive = False

    def _restart(self) -> None:
        dead = [node for node in self.nodes.values() if not node.alive]
        if dead:
            node = self.rng.choice(dead)
            node.alive, node.reader, node.life = True, Reader(), node.life + 1
            node.spare_since_s, node.steady_since_s = {}, None

    def _cut_off(self) -> None:
        self.rng.choice(list(self.nodes.values())).connected = False

    def _connect(self) -> None:
        for node in self.nodes.values():
            node.connected = True

    def _wipe(self) -> None:
        """One node at a time loses its disk, as long as everything is whole elsewhere."""
        node = self.rng.choice(list(self.nodes.values()))
        others = [one.whole() for one in self.nodes.values() if one is not node and one.alive]
        if all(sum(p in whole for whole in others) >= REPLICAS - 1 for p in range(len(self.ends))):
            node.held, node.wanted, self.wiped_s = {}, {}, self.now_s

    def _join(self, name: str) -> None:
        if len(self.nodes) < 12:
            self.nodes[name] = Node(name)

    def _drain(self) -> None:
        seats = [seat for seat in self._truth().seats.values() if seat.presence is Presence.IN]
        if len(seats) > REPLICAS + 1:
            seat = self.rng.choice(seats)
            self._append(Seat(seat.ordinal, seat.node, Presence.DRAINING))

    def _compact(self) -> None:
        """Records are rewritten so that of each key only the last is left, at its place."""
        last = {key: at for at, (key, _, _) in enumerate(self.topic)}
        self.topic = [
            record if last[record[0]] == at else ("", None, record[2]) for at, record in enumerate(self.topic)
        ]

    # The control topic.

    def _append(self, record: Record) -> None:
        self.topic.append((key_of(record), encode_record(record), self.now_s))

    def _read(self, reader: Reader, end: int, *, late: bool = False) -> None:
        if late:
            end = self.rng.randint(reader.position, end)
        for at in range(reader.position, end):
            key, value, time_s = self.topic[at]
            if not key:
                continue
            record = None if value is None else parse_record(key, value, at)
            if record is None:
                reader.members.forget(key)
            else:
                reader.members.apply(record, round(time_s * 1000), time_s)
        reader.position = max(reader.position, end)

    def _truth(self) -> Members:
        reader = Reader()
        self._read(reader, len(self.topic))
        return reader.members

    def _live(self, reader: Reader) -> dict[str, Member]:
        members = reader.members.by_name
        return {n: one for n, one in members.items() if not one.stopped and self.now_s - one.heard_s < LIVE_S}

    def _heartbeat(self, node: Node) -> Event:
        applied = {p: offset for p, offset in node.held.items() if p not in node.spare_since_s}
        lagging = frozenset(applied.keys() - node.whole())
        about = (f"{node.name}:9080", applied, lagging, True, 0)
        return Event(EventKind.HEARTBEAT, node.name, f"{node.name}-{node.life}", *about)

    def _holders(self, partition: int) -> list[str]:
        return [name for name, node in self.nodes.items() if partition in node.held]
