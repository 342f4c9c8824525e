"""How a node comes by a partition: as a copy of another node's, else from the log.

Assigner ── want(partitions, sources) ──► a thread ──► copy from a peer ─┐
                                                   ├─► nobody has it: the newest backup ─┤
                                                   └─► nothing to copy ──┴─► settled(): it may be opened
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from common.calling import ANONYMOUS, Caller
from common.control.members import Member
from common.errors import LogUnavailable, RetryableError
from common.events import EventLog
from common.log.base import Log
from common.wire.frames import WireError
from common.wire.reports import Copy
from storage_node.backup.errors import TargetError
from storage_node.backup.fetching import fetch_partition
from storage_node.backup.manifest import Manifest
from storage_node.backup.target import Target
from storage_node.copies import CopyWriter
from storage_node.copy_client import CopyRefused, CopyStream
from storage_node.errors import DiskError
from storage_node.views import FORMAT_VERSION, Views

SHORT_LOG_RECORDS = 1000
"""A partition of which the log has all, and no more than that, is quicker read from there."""
PEER_WAIT_S = 60.0
"""How long a partition whose log has lost its start waits for a node that could give a copy."""
AT_ONCE = 3
"""Partitions that are fetched at the same time, as a rule from different nodes."""
ROUNDS = 3
RESUMES = 20
_PAUSE_S = 1.0

_log = EventLog("storage_node")


class Acquirer:
    """Fetches partitions, AT_ONCE at a time. `start` it, say what is wanted, `close` it.

    views: gives the views as they are now. use_peers: False to read everything from the log. caller: how it shows
      itself to them. backups: where to take from what neither they nor the log have.
    """

    def __init__(
        self,
        log: Log,
        views: Callable[[], Views],
        *,
        use_peers: bool = True,
        caller: Caller = ANONYMOUS,
        backups: Target | None = None,
        peer_wait_s: float = PEER_WAIT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._views = views
        self._use_peers = use_peers
        self._caller = caller
        self._backups = backups
        self._peer_wait_s = peer_wait_s
        self._clock = clock
        self._changed = threading.Condition()
        self._wanted: dict[int, Sequence[Member]] = {}
        self._since_s: dict[int, float] = {}
        self._rounds: dict[int, int] = {}
        self._settled: frozenset[int] = frozenset()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="acquire", daemon=True)
        self.copying: dict[int, Copy] = {}
        """Copies under way, by partition."""
        self.copied = 0
        """Partitions that came as copies."""

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def want(self, wanted: Mapping[int, Sequence[Member]]) -> frozenset[int]:
        """Say which partitions the node lacks, with those who have each; returns what may be opened of them."""
        with self._changed:
            self._wanted = dict(wanted)
            now_s = self._clock()
            self._since_s = {p: self._since_s.get(p, now_s) for p in wanted}
            self._rounds = {p: self._rounds.get(p, 0) for p in wanted}
            self._settled &= wanted.keys()
            self._changed.notify_all()
            return self._settled

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._changed:
                left = sorted(self._wanted.keys() - self._settled)
                if not left:
                    self._changed.wait(_PAUSE_S)
                    continue
            with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="acquire") as threads:
                progress = any(list(threads.map(self._acquire, left)))
            if not progress:
                self._stop.wait(_PAUSE_S)

    def _acquire(self, partition: int) -> bool:
        """Try to come by a partition; says whether it is settled."""
        with self._changed:
            sources = self._wanted.get(partition)
        if sources is None or self._stop.is_set():
            return False
        try:
            done = self._from_log(partition, sources) or self._copy(partition, sources)
        except (LogUnavailable, DiskError, TargetError) as error:
            _log.warning("partition_not_acquired", partition=partition, reason=str(error))
            done = False
        if done:
            with self._changed:
                if partition in self._wanted:
                    self._settled |= {partition}
        return done

    def _from_log(self, partition: int, sources: Sequence[Member]) -> bool:
        """Whether the log is where it comes from."""
        start, end = self._log.bounds(partition)
        if start == 0 and (not self._use_peers or end <= SHORT_LOG_RECORDS or not sources):
            return True
        if sources and self._use_peers:
            return self._rounds[partition] >= ROUNDS and start == 0
        if self._use_peers and self._clock() - self._since_s[partition] < self._peer_wait_s:
            return False
        if self._backups is not None and self._restore(partition, start, self._backups):
            return True
        _log.error("log_cut_off_and_no_peer", partition=partition, start=start)
        return True

    def _restore(self, partition: int, log_start: int, backups: Target) -> bool:
        done_bytes, begin_s = 0, self._clock()

        def show(manifest: Manifest, n_bytes: int) -> None:
            nonlocal done_bytes
            done_bytes += n_bytes
            source, seconds = f"backup {manifest.run}", self._clock() - begin_s
            self.copying[partition] = Copy(source, done_bytes, manifest.size_bytes, seconds)

        try:
            return fetch_partition(backups, self._views(), partition, log_start, self._stop, progress=show)
        finally:
            self.copying.pop(partition, None)

    def _copy(self, partition: int, sources: Sequence[Member]) -> bool:
        for member in sources if self._use_peers else ():
            try:
                self._copy_from(partition, member)
            except RetryableError as error:
                if isinstance(error, DiskError):
                    raise
                _log.warning("copy_failed", partition=partition, node=member.name, reason=str(error))
            else:
                with self._changed:
                    self.copied += 1
                return True
            finally:
                self.copying.pop(partition, None)
        with self._changed:
            if partition in self._rounds:
                self._rounds[partition] += 1
        return False

    def _copy_from(self, partition: int, member: Member) -> None:
        """Copy a partition of a node; goes on where it was cut off. Raises RetryableError."""
        begin_s = self._clock()
        writer = CopyWriter(self._views().disk, partition)
        writer.begin()
        stream = CopyStream(self._caller, member.name, member.address, partition)
        for attempt in range(RESUMES + 1):
            try:
                header = stream.open(writer.last_key)
                self._check(header)
                about = header.get("about_bytes")
                total_bytes = about if isinstance(about, int) else None
                for payload in stream.payloads():
                    if self._stop.is_set():
                        raise CopyRefused("this node is stopping")
                    writer.add(payload)
                    progress = writer.size_bytes, total_bytes, self._clock() - begin_s
                    self.copying[partition] = Copy(member.name, *progress)
                break
            except (WireError, ConnectionError) as error:
                # A copy that was cut off goes on behind its last key.
                if attempt == RESUMES or not stream.snapshot or self._stop.is_set():
                    raise CopyRefused(str(error)) from None
                self._stop.wait(_PAUSE_S)
            finally:
                stream.close()
        writer.finish(is_empty=header.get("next_offset") == 0)
        took = {"bytes": writer.size_bytes, "seconds": round(self._clock() - begin_s, 3)}
        _log.info("partition_copied", partition=partition, node=member.name, **took)

    def _check(self, header: Mapping[str, object]) -> None:
        """Raises CopyRefused if the copy is of no use here."""
        config = self._views().config
        wanted = {"format": FORMAT_VERSION, "log": config.log_identity, "retention_ms": config.retention_ms}
        for what, value in wanted.items():
            if header.get(what) != value:
                raise CopyRefused(f"its {what} is {header.get(what)!r}, not {value!r}")
