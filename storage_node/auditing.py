"""Comparing replicas all the time: a mark in the log, and everybody's digest at it.

Each partition is audited by the node that is its first choice, so that none is audited twice.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from common.calling import ANONYMOUS, Caller
from common.control.members import Member
from common.errors import LogUnavailable, RetryableError
from common.events import EventLog
from common.log.base import Append, Log
from common.membership import Membership
from common.record import NOTHING, encode_record
from common.wire.peers import fetch_mark
from storage_node.assignment import Targets, sources_of
from storage_node.config import AUDIT_EVERY_S
from storage_node.marks import Mark, differing_windows
from storage_node.service import StorageNode
from storage_node.windows import window_start

MARK_WAIT_S = 30.0
_APPEND_S = 30.0

_log = EventLog("storage_node")


class Auditor:
    """Audits for the node `name`. `start` it once the node has started, `close` it before the node."""

    def __init__(
        self,
        membership: Membership,
        log: Log,
        node: StorageNode,
        name: str,
        *,
        every_s: float = AUDIT_EVERY_S,
        caller: Caller = ANONYMOUS,
    ) -> None:
        self._membership = membership
        self._log = log
        self._node = node
        self._name = name
        self._every_s = every_s
        self._caller = caller
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{name}-audit", daemon=True)
        self.comparisons = 0
        """Replicas that were compared with this node's."""
        self.differing: frozenset[tuple[int, str]] = frozenset()
        """(partition, node) of replicas that differed when they were compared last."""
        self.compared: dict[tuple[int, str], tuple[int, bool]] = {}
        """Offset of the mark, and whether the digests were equal, of each when it was compared last."""

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def audit(self, partition: int, others: Sequence[Member]) -> None:
        """Compare the replicas of a partition that other nodes have with the one here. Raises RetryableError."""
        offset = self._log.append([Append(partition, encode_record(NOTHING))]).result(_APPEND_S)[0]
        mine = self._node.mark(partition, offset, wait_s=MARK_WAIT_S)
        for member in others:
            try:
                digest, windows = fetch_mark(
                    member.name, member.address, partition, offset, wait_s=MARK_WAIT_S, caller=self._caller
                )
            except RetryableError as error:
                _log.warning("replica_not_compared", partition=partition, node=member.name, reason=str(error))
                continue
            self.comparisons += 1
            self._note(partition, member.name, mine, Mark(offset, digest, windows))

    def _note(self, partition: int, node: str, mine: Mark, theirs: Mark) -> None:
        replica = partition, node
        self.compared[replica] = mine.offset, mine.digest == theirs.digest
        if mine.digest == theirs.digest:
            self.differing -= {replica}
            return
        self.differing |= {replica}
        for number in differing_windows(mine.windows, theirs.windows):
            where = {"partition": partition, "offset": mine.offset, "window_start_ms": window_start(number)}
            _log.error("replicas_differ", node=node, **where)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            cluster = self._membership.cluster()
            if cluster.layout is None:
                continue
            targets = Targets(cluster.layout, cluster.seats)
            live = self._membership.live(cluster)
            for partition in sorted(self._node.ready_partitions()):
                if self._stop.is_set():
                    return
                if targets.of(partition)[:1] == [self._name]:
                    try:
                        self.audit(partition, sources_of(partition, self._name, live))
                    except (LogUnavailable, RetryableError, TimeoutError) as error:
                        _log.warning("partition_not_audited", partition=partition, reason=str(error))
