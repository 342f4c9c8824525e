"""`tabor cluster verify`: are all replicas of every partition there, and equal?"""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from datetime import UTC, datetime

from common.calling import Caller
from common.errors import LogUnavailable, RetryableError
from common.log.base import Append
from common.record import NOTHING, encode_record
from common.wire.peers import ask_to_repair, fetch_mark
from storage_node.marks import differing_windows
from storage_node.windows import window_start
from tabor.cluster.reading import READ_S, Reading, reading
from tabor.progress import Bar, say

REPAIR_WAIT_S = 600.0
_AT_ONCE = 16
_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class Replica:
    """What a node says of a partition at the mark; reason: why it says nothing."""

    node: str
    address: str
    digest: str | None
    windows: dict[int, str]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one partition. wrong: replicas that differ from the majority; None if there is no majority."""

    partition: int
    offset: int
    wanted: int
    replicas: list[Replica]

    @property
    def agreed(self) -> str | None:
        """The digest that more replicas have than any other."""
        counts = Counter(one.digest for one in self.replicas if one.digest is not None).most_common(2)
        if not counts or (len(counts) == 2 and counts[0][1] == counts[1][1]):
            return None
        return counts[0][0]

    @property
    def wrong(self) -> list[Replica]:
        return [one for one in self.replicas if one.digest is not None and one.digest != self.agreed]

    @property
    def equal(self) -> int:
        """Replicas that have the digest of the majority."""
        return sum(one.digest == self.agreed for one in self.replicas if one.digest is not None)

    @property
    def good(self) -> bool:
        return self.agreed is not None and not self.wrong and self.equal >= self.wanted


def run_verify(url: str, caller: Caller, *, repair: bool, wait_s: float) -> bool:
    """Compare all replicas and print what is wrong; says whether everything is right at last."""
    with reading(url, writes_log=True) as cluster:
        verdicts = verify(cluster, caller, wait_s)
        good = _print(verdicts)
        if good or not repair:
            return good
        odd = [(verdict.partition, one) for verdict in verdicts for one in verdict.wrong if verdict.agreed]
        if not odd:
            say("nothing can be repaired from here: replicas that are missing come back with their nodes")
            return False
        for partition, replica in odd:
            say(f"partition {partition} of {replica.node} is fetched anew")
            ask_to_repair(replica.node, replica.address, partition, caller)
        _wait_repaired(cluster, [(partition, replica.node) for partition, replica in odd])
        return _print(verify(cluster, caller, wait_s))


def verify(cluster: Reading, caller: Caller, wait_s: float) -> list[Verdict]:
    """Put a mark into every partition and ask everybody who has it for its digest there."""
    layout, live = cluster.layout(), cluster.live()
    record = encode_record(NOTHING)
    try:
        marks = cluster.log.append([Append(p, record) for p in range(layout.partitions)]).result(READ_S)
    except FutureTimeout:
        raise LogUnavailable("the log takes no records") from None
    asked = [(p, offset, member) for p, offset in enumerate(marks) for member in live.values() if member.has(p)]
    replicas: dict[int, list[Replica]] = {p: [] for p in range(layout.partitions)}
    with ThreadPoolExecutor(_AT_ONCE) as threads, Bar("comparing replicas", total=len(asked)) as bar:

        def ask(partition: int, offset: int, name: str, address: str) -> tuple[int, Replica]:
            try:
                digest, windows = fetch_mark(name, address, partition, offset, wait_s=wait_s, caller=caller)
            except RetryableError as error:
                return partition, Replica(name, address, None, {}, str(error))
            return partition, Replica(name, address, digest, windows)

        futures = [threads.submit(ask, p, offset, one.name, one.address) for p, offset, one in asked]
        for done, future in enumerate(futures, start=1):
            partition, replica = future.result()
            replicas[partition].append(replica)
            bar.update(done)
    return [Verdict(p, marks[p], layout.replicas, replicas[p]) for p in range(layout.partitions)]


def _wait_repaired(cluster: Reading, odd: list[tuple[int, str]]) -> None:
    deadline = time.monotonic() + REPAIR_WAIT_S
    # The node's next heartbeat says that it lacks the partition.
    time.sleep(_PAUSE_S)
    while True:
        live = cluster.live()
        left = [(p, name) for p, name in odd if name not in live or not live[name].has(p)]
        if not left:
            return
        if time.monotonic() > deadline:
            raise RetryableError(f"{left[0][1]} does not have partition {left[0][0]} after {REPAIR_WAIT_S:g} s")
        time.sleep(_PAUSE_S)


def _print(verdicts: list[Verdict]) -> bool:
    for verdict in verdicts:
        where = f"partition {verdict.partition} at offset {verdict.offset}"
        for one in verdict.replicas:
            if one.digest is None:
                print(f"{where}: {one.node} was not compared: {one.reason}")
        if verdict.agreed is None:
            digests = ", ".join(f"{one.node} {one.digest}" for one in verdict.replicas if one.digest)
            if digests:
                print(f"{where}: no majority: {digests}; rebuild with `storage-node --from log`")
            else:
                print(f"{where}: no live node has it; `tabor cluster status` says who is to")
        for one in verdict.wrong if verdict.agreed else ():
            print(f"{where}: {one.node} differs from {verdict.equal} others in {_windows(verdict, one)}")
        if verdict.agreed is not None and verdict.equal < verdict.wanted and not verdict.wrong:
            print(f"{where}: {verdict.equal} of {verdict.wanted} replicas")
    good = sum(verdict.good for verdict in verdicts)
    print(f"{good} of {len(verdicts)} partitions have all their replicas, and these are equal")
    return good == len(verdicts)


def _windows(verdict: Verdict, odd: Replica) -> str:
    right = next(one for one in verdict.replicas if one.digest == verdict.agreed)
    differing = differing_windows(right.windows, odd.windows)
    some = [datetime.fromtimestamp(window_start(n) / 1000, UTC).isoformat() for n in differing[:3]]
    return f"{len(differing)} windows of 4 h, which begin at {', '.join(some)}{', …' if differing[3:] else ''}"
