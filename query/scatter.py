"""Asking storage nodes: every partition of exactly one node, all nodes at the same time.

read ──► candidates (heartbeats) ──► Gathering ──► attempts, a thread each ──► answers that are kept
                                        ▲               │ slow, silent, refused, behind
                                        └───────────────┘

A read is hedged, that is another node is asked beside the first, when that one gives no sign of life or takes
longer than 95 of 100 reads of its kind did. Hedges of slow reads are limited to a share of all reads, so that they
cannot double the load of nodes that have too much of it already.
"""

from __future__ import annotations

import contextvars
import math
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import TypeVar

from prometheus_client import Counter

from common import tally
from common.control.members import Member
from common.errors import CallerError, RetryableError
from common.membership import Membership
from common.store import NotCaughtUp
from common.wire.requests import MAX_WAIT_S, ReadRequest
from query.gathering import Attempt, Gathering

T = TypeVar("T")

AVOID_S = 5.0
"""How long a node that failed is asked last."""
TURN_S = 0.5
"""How long one of several nodes may take to catch up before the next is asked."""
MAX_ATTEMPTS = 256
"""Reads of nodes under way at the same time."""
SIGN_S = 0.25
"""A node that has not begun to answer by then is hedged."""
SILENT_S = 1.5
"""One that has begun is hedged after that much silence: it sends a sign of life every second."""
CHECK_S = 0.1
"""How often it is looked whether a read is still wanted."""
_LEAST_HEDGE_S = 0.05
_HEDGES_PER_READ = 0.1
_MOST_HEDGES = 10.0
_PAUSE_S = 0.02
_LAG_RECORDS = 1024

READS = Counter("tabor_query_node_reads", "Reads asked of storage nodes, by outcome", ["outcome"])
HEDGES = Counter("tabor_query_node_hedges", "Reads asked of a second node because the first was slow", ["reason"])

AskNode = Callable[[Member, ReadRequest, Callable[[], None], float], T]
"""Asks a node until a deadline, calling the function at every sign of life. Raises RetryableError, CallerError."""


@dataclass(slots=True)
class _Running:
    """An attempt under way. signed_s: when its node was last heard, None before that."""

    attempt: Attempt
    started_s: float
    signed_s: float | None = None
    hedged: bool = False
    given_up: bool = False


@dataclass(slots=True)
class _Outcome:
    running: _Running
    answer: object = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms a query reads.

    required: next offset of each partition that must have been applied; None for an eventual read.
    deadline_s: on the monotonic clock.
    missing: None to fail if a partition has no node; else what is missing is noted there.
    check: called now and then while nodes work; what it raises ends the read.
    """

    required: tuple[int, ...] | None
    deadline_s: float
    missing: dict[int, str] | None = None
    check: Callable[[], None] | None = None


@dataclass(slots=True)
class _Latencies:
    """How long the last reads of one kind took."""

    recent_s: deque[float] = field(default_factory=lambda: deque(maxlen=200))

    def hedge_after_s(self) -> float:
        if len(self.recent_s) < 20:
            return SIGN_S
        return max(sorted(self.recent_s)[int(0.95 * len(self.recent_s))], _LEAST_HEDGE_S)


class Scatter:
    """Spreads reads over the nodes of a cluster. Any thread may ask."""

    def __init__(self, membership: Membership, n_partitions: int) -> None:
        self._membership = membership
        self._n_partitions = n_partitions
        self._avoid_until_s: dict[str, float] = {}
        self._latencies: defaultdict[str, _Latencies] = defaultdict(_Latencies)
        self._hedges_left = _MOST_HEDGES
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(MAX_ATTEMPTS, thread_name_prefix="scatter")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def ask(self, read: str, asked: ReadRequest, ask_node: AskNode[T], terms: Terms) -> list[T]:
        """Answers that together are of all partitions, each of one node, in the order of their first partitions.

        Raises:
            CallerError: a node says that the request is wrong.
            NotCaughtUp: a partition did not catch up in time.
            RetryableError: a partition has no node that answers; says what became of each.
        """
        return _Read(self, read, asked, ask_node, terms).run()

    def candidates(self, reasons: dict[str, str]) -> tuple[dict[int, list[str]], dict[str, Member]]:
        """Nodes to ask for each partition, best first; why others are not asked goes to `reasons`, by node.

        Who is alive is judged against the newest heartbeat of all and not against the clock: if Kafka is away,
        nobody's heartbeat arrives, and those that were there last are still worth asking.
        """
        nodes = {member.name: member for member in self._membership.nodes()}
        newest_s = max((member.heard_s for member in nodes.values()), default=0.0)
        now_s = time.monotonic()
        live = []
        for member in nodes.values():
            if member.heard_s < newest_s - self._membership.live_s:
                age_s = self._membership.age_s(member)
                reasons[member.name] = f"{member.name} at {member.address} was last heard {age_s:.0f} s ago"
            elif not member.ready:
                reasons[member.name] = f"{member.name} at {member.address} still replays the log"
            else:
                live.append(member)
        furthest = [0] * self._n_partitions
        for member in live:
            for partition, offset in member.applied.items():
                if partition < self._n_partitions:
                    furthest[partition] = max(furthest[partition], offset)
        avoided = {name for name, until_s in self._avoid_until_s.items() if until_s > now_s}

        def rank(member: Member, partition: int) -> tuple[bool, int, int, str]:
            lag = (furthest[partition] - member.applied[partition]) // _LAG_RECORDS
            # The caches of a node that is always asked for the same partitions are warm.
            return member.name in avoided, lag, member.preference(partition), member.name

        found: dict[int, list[str]] = {}
        for partition in range(self._n_partitions):
            holders = [member for member in live if member.has(partition)]
            found[partition] = [m.name for m in sorted(holders, key=lambda m: rank(m, partition))]
        return found, nodes

    def avoid(self, node: str) -> None:
        """Ask this node last for a while."""
        self._avoid_until_s[node] = time.monotonic() + AVOID_S

    def may_hedge_slow(self) -> bool:
        """Whether one more slow read may be hedged; takes it from the budget."""
        with self._lock:
            if self._hedges_left < 1.0:
                return False
            self._hedges_left -= 1.0
            return True

    def note_read(self) -> None:
        with self._lock:
            self._hedges_left = min(_MOST_HEDGES, self._hedges_left + _HEDGES_PER_READ)

    def nobody(self) -> str:
        return f"none has announced itself in {self._membership.topic.name}; start `tabor storage-node`"

    def hedge_after_s(self, read: str) -> float:
        return self._latencies[read].hedge_after_s()

    def note_latency(self, read: str, seconds: float) -> None:
        self._latencies[read].recent_s.append(seconds)

    def submit(self, job: Callable[[], None]) -> None:
        """Run a job on a thread of its own, in the context of the caller. Raises RetryableError when closed."""
        try:
            self._threads.submit(contextvars.copy_context().run, job)
        except RuntimeError:
            raise RetryableError("the server is stopping") from None


class _Read:
    """One read, from its first attempts to its end. One thread, besides those of the attempts."""

    def __init__(
        self, scatter: Scatter, read: str, asked: ReadRequest, ask_node: AskNode[T], terms: Terms
    ) -> None:
        self._scatter = scatter
        self._read = read
        self._asked = asked
        self._ask_node = ask_node
        self._terms = terms
        self._reasons: dict[str, str] = {}
        candidates, self._nodes = scatter.candidates(self._reasons)
        counts = tally.current()
        counts.partitions = max(counts.partitions, len(candidates))
        self._gathering = Gathering(candidates)
        self._outcomes: SimpleQueue[_Outcome] = SimpleQueue()
        self._running: dict[int, _Running] = {}
        self._behind: NotCaughtUp | None = None
        self._again_at_s = math.inf

    def run(self) -> list[T]:
        answers: list[tuple[tuple[int, ...], T]] = []
        self._launch(self._gathering.start())
        try:
            while not self._gathering.done:
                if not self._go_on():
                    break
                if self._terms.check is not None:
                    self._terms.check()
                try:
                    outcome = self._outcomes.get(timeout=self._wait_s())
                except Empty:
                    self._hedge()
                    continue
                self._settle(outcome, answers)
        finally:
            for running in self._running.values():
                running.given_up = True
        # In the order of partitions, so that nothing depends on who was quick.
        return [answer for _, answer in sorted(answers, key=lambda one: one[0])]

    def _go_on(self) -> bool:
        """Whether there is still something to wait for; False if what is missing may stay so. Raises otherwise."""
        stuck = self._gathering.stuck()
        now_s = time.monotonic()
        if stuck and self._behind is not None and now_s + _PAUSE_S < self._terms.deadline_s:
            # Those that are behind may have caught up when they are asked again.
            self._again_at_s = min(self._again_at_s, now_s + _PAUSE_S)
            if now_s >= self._again_at_s or not self._running:
                time.sleep(max(0.0, self._again_at_s - now_s))
                self._again_at_s = math.inf
                self._launch(self._gathering.again())
            return True
        if now_s >= self._terms.deadline_s + 1.0:
            stuck = stuck or [p for running in self._running.values() for p in running.attempt.partitions]
        if not stuck:
            return True
        message = self._message(stuck)
        if self._terms.missing is None:
            raise NotCaughtUp(message) if self._behind is not None else RetryableError(message)
        if self._running and now_s < self._terms.deadline_s:
            return True
        self._terms.missing.update(dict.fromkeys(stuck, message))
        return False

    def _message(self, stuck: list[int]) -> str:
        partitions = ", ".join(map(str, stuck[:5])) + (", …" if len(stuck) > 5 else "")
        which = f"partition{'s' if len(stuck) > 1 else ''} {partitions}"
        reasons = "; ".join(self._reasons.values())
        if not self._nodes:
            reasons = self._scatter.nobody()
        return f"no storage node can answer for {which}: {reasons or 'none holds it'}"

    def _launch(self, attempts: list[Attempt]) -> None:
        for attempt in attempts:
            running = _Running(attempt, time.monotonic())
            self._running[attempt.number] = running
            self._scatter.note_read()
            self._scatter.submit(lambda running=running: self._attempt(running))  # type: ignore[misc]

    def _attempt(self, running: _Running) -> None:
        """On a thread of its own: ask one node."""
        attempt, deadline_s = running.attempt, self._terms.deadline_s

        def sign() -> None:
            if running.given_up:
                raise RetryableError("not needed any more")
            running.signed_s = time.monotonic()

        left_s = max(0.0, deadline_s - time.monotonic())
        wait_s = left_s if attempt.alone else min(left_s, TURN_S)
        required = self._terms.required
        request = replace(
            self._asked,
            node=attempt.node,
            partitions=attempt.partitions,
            required=None if required is None else tuple(required[p] for p in attempt.partitions),
            wait_s=min(wait_s, MAX_WAIT_S),
        )
        try:
            answer = self._ask_node(self._nodes[attempt.node], request, sign, deadline_s)
        except Exception as error:
            self._outcomes.put(_Outcome(running, error=error))
        else:
            self._outcomes.put(_Outcome(running, answer))

    def _settle(self, outcome: _Outcome, answers: list[tuple[tuple[int, ...], T]]) -> None:
        running, error = outcome.running, outcome.error
        attempt = running.attempt
        node = self._nodes[attempt.node]
        del self._running[attempt.number]
        if error is None:
            READS.labels("answered").inc()
            self._scatter.note_latency(self._read, time.monotonic() - running.started_s)
            if self._gathering.answered(attempt):
                answers.append((attempt.partitions, outcome.answer))  # type: ignore[arg-type]
            self._launch(self._gathering.stuck_asked_elsewhere())
            return
        if isinstance(error, CallerError) or not isinstance(error, RetryableError):
            raise error
        if isinstance(error, NotCaughtUp):
            READS.labels("behind").inc()
            self._behind = error
            self._reasons[node.name] = f"{node.name} is behind: {error}"
        else:
            READS.labels("failed").inc()
            self._scatter.avoid(node.name)
            self._reasons[node.name] = f"{node.name} at {node.address}: {error}"
        self._launch(self._gathering.failed(attempt))

    def _wait_s(self) -> float:
        """Until something may have to be hedged or given up."""
        until_s = min(self._terms.deadline_s + 1.0, self._again_at_s)
        after_s = self._scatter.hedge_after_s(self._read)
        for running in self._running.values():
            if not running.hedged and not running.attempt.alone:
                due_s = running.started_s + min(after_s, SIGN_S if running.signed_s is None else after_s)
                until_s = min(until_s, max(due_s, time.monotonic() + _PAUSE_S))
        longest_s = math.inf if self._terms.check is None else CHECK_S
        return max(0.0, min(until_s - time.monotonic(), longest_s))

    def _hedge(self) -> None:
        now_s = time.monotonic()
        after_s = self._scatter.hedge_after_s(self._read)
        for running in list(self._running.values()):
            if running.hedged or running.attempt.alone or not self._gathering.is_needed(running.attempt):
                continue
            heard_s = running.signed_s
            is_silent = now_s - running.started_s > SIGN_S if heard_s is None else now_s - heard_s > SILENT_S
            is_slow = now_s - running.started_s > after_s
            if is_silent or (is_slow and self._scatter.may_hedge_slow()):
                running.hedged = True
                if is_silent:
                    self._scatter.avoid(running.attempt.node)
                HEDGES.labels("silent" if is_silent else "slow").inc()
                tally.current().hedges += 1
                self._launch(self._gathering.hedged(running.attempt))
