"""Keeps a node of a cluster at what it has to hold.

control topic ─► Membership ─► decide() ─► Acquirer ─► StorageNode.assign()
                     ▲            └──────► seats of nodes that are silent for too long
                     └── heartbeats: state()
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from common.control.events import encode_record, key_of
from common.control.members import Member
from common.errors import LogUnavailable
from common.events import EventLog
from common.membership import Cluster, Membership, NodeState
from storage_node.acquiring import Acquirer
from storage_node.assignment import Targets, decide, long_silent, sources_of
from storage_node.config import REBUILD_AFTER_S
from storage_node.copies import Copies
from storage_node.service import StorageNode

LOOK_S = 0.2
GRACE_S = 5.0
"""How long a partition is kept after the heartbeats have ceased to offer it, for reads under way."""
_SAY_AGAIN_S = 10.0

_log = EventLog("storage_node")


class Assigner:
    """Follows the cluster for the node `name`. `start` it once the node has started, `close` it before the node.

    rebuild_after_s: after so long a silence of a node its partitions are rebuilt elsewhere.
    """

    def __init__(
        self,
        membership: Membership,
        node: StorageNode,
        name: str,
        acquirer: Acquirer,
        copies: Copies,
        *,
        rebuild_after_s: float = REBUILD_AFTER_S,
        grace_s: float = GRACE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._membership = membership
        self._node = node
        self._name = name
        self._acquirer = acquirer
        self._copies = copies
        self._rebuild_after_s = rebuild_after_s
        self._grace_s = grace_s
        self._clock = clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"{name}-assignment", daemon=True)
        # Partitions to be dropped, and since when nobody has been told of them.
        self._spare_since_s: dict[int, float] = {}
        # Partitions that are to be dropped although they belong here; fetched anew once they are gone.
        self._in_repair: set[int] = set()
        self._lock = threading.Lock()
        self._live_since_s: float | None = None
        self._said_away_s: dict[int, float] = {}

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def state(self) -> NodeState:
        """For the node's heartbeats."""
        node = self._node
        spare = self._spare_since_s
        applied = {p: offset for p, offset in node.views.positions().items() if p not in spare}
        return NodeState(applied, frozenset(applied.keys() - node.ready_partitions()), node.is_ready())

    def repair(self, partition: int) -> None:
        """Throw a partition away and fetch it anew, from another node or the log."""
        _log.warning("partition_repaired", partition=partition)
        with self._lock:
            self._in_repair.add(partition)

    def look(self) -> None:
        """Act on what the control topic says now."""
        cluster = self._membership.cluster()
        if cluster.layout is None or not any(seat.node == self._name for seat in cluster.seats.values()):
            return
        now_s = self._clock()
        live = self._membership.live(cluster)
        held = self._node.views.shards.keys()
        decision = decide(self._name, Targets(cluster.layout, cluster.seats), live, held)
        self._spare_since_s = {p: self._spare_since_s.get(p, now_s) for p in decision.spare}
        # Of two nodes that would each leave a partition to the other, the one whose heartbeat ceases to offer it
        # later has the other's before its own; so nobody drops before he has read his own.
        offered = cluster.members[self._name].applied if self._name in cluster.members else {}
        kept = {p for p, since_s in self._spare_since_s.items() if now_s - since_s < self._grace_s or p in offered}
        lacking = {p: sources_of(p, self._name, live) for p in decision.hold - held}
        with self._lock:
            self._in_repair &= held
            in_repair = frozenset(self._in_repair)
        self._node.assign(((decision.hold & held) | self._acquirer.want(lacking) | kept) - in_repair)
        self._mark_silent(cluster, live, now_s)

    def _mark_silent(self, cluster: Cluster, live: Mapping[str, Member], now_s: float) -> None:
        """Mark nodes that are gone for long, unless it is this node that does not hear them."""
        if self._name not in live:
            self._live_since_s = None
            return
        if self._live_since_s is None:
            self._live_since_s = now_s
        if now_s - self._live_since_s < self._membership.live_s:
            return
        silent_s = {name: self._membership.age_s(one) for name, one in cluster.members.items()}
        for seat in long_silent(self._name, cluster.seats, live, silent_s, self._rebuild_after_s):
            if now_s - self._said_away_s.get(seat.ordinal, -_SAY_AGAIN_S) >= _SAY_AGAIN_S:
                self._said_away_s[seat.ordinal] = now_s
                _log.warning("node_silent", node=seat.node, ordinal=seat.ordinal, silent_s=silent_s[seat.node])
                self._membership.topic.send(key_of(seat), encode_record(seat))

    def _follow(self) -> None:
        while not self._stop.wait(LOOK_S):
            self._copies.expire()
            try:
                self.look()
            except LogUnavailable as error:
                _log.warning("log_unavailable", reason=str(error))
