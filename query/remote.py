"""Reads from storage nodes over HTTP: `common.store.SeriesStore` (`docs/format/read-api.md`).

Every storage node holds everything, so a query asks one: the most caught up of those that are ready. If it
refuses, hangs, dies or is behind, the next one is asked, from the start; an answer is whole or there is none.

A strong read learns the ends of the log first (`wait_caught_up`) and sends them with every read that follows in
the same context (`contextvars`), so that whichever node answers has applied them. Each query needs a context of
its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from prometheus_client import Counter

from common.control.members import LIVE_S, Member
from common.errors import CallerError, RetryableError
from common.labels import LabelTable
from common.membership import Membership
from common.store import ANY_NUMBER, Extent, Matcher, Metadata, NotCaughtUp, Selection, SeriesExemplars
from common.wire import answers
from common.wire.frames import MEDIA_TYPE, FrameReader, WireError, parse_object
from common.wire.requests import MAX_WAIT_S, PATHS, ReadRequest, encode_request

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

CONNECT_S = 1.0
SILENCE_S = 5.0
"""A node that sends nothing for that long hangs: while it works it sends a sign of life every second."""
AVOID_S = 5.0
"""How long a node that failed is asked last."""
TURN_S = 0.5
"""How long one of several nodes may take to catch up before the next is asked."""
MAX_CONNECTIONS = 100
GRACE_S = 0.5
"""How long after the deadline a node may still say that it has not caught up."""
_PAUSE_S = 0.02
_MAX_ERROR_BYTES = 64 << 10
# Shorter than the servers', so that a connection is not used in the moment in which it is closed.
_IDLE_S = 30.0

READS = Counter("tabor_query_node_reads", "Reads asked of storage nodes, by outcome", ["outcome"])


@dataclass(frozen=True, slots=True)
class _StrongRead:
    """What `wait_caught_up` leaves behind for the reads that follow in its context.

    node: the one that was found caught up. deadline_s: of the query, on the monotonic clock.
    """

    store: RemoteStore
    required: tuple[int, ...]
    node: str
    deadline_s: float


_strong_read: ContextVar[_StrongRead | None] = ContextVar("tabor_strong_read", default=None)


class RemoteStore:
    """The store that the nodes of `membership` make up.

    high_watermarks: asks the log for the end of each partition; raises LogUnavailable.
    timeout_s: of reads that no `wait_caught_up` gave a deadline.
    """

    def __init__(
        self,
        membership: Membership,
        high_watermarks: Callable[[], list[int]],
        *,
        timeout_s: float = 120.0,
        silence_s: float = SILENCE_S,
    ) -> None:
        import httpx

        self._membership = membership
        self._high_watermarks = high_watermarks
        self._timeout_s = timeout_s
        self._avoid_until_s: dict[str, float] = {}
        self._client = httpx.Client(
            timeout=httpx.Timeout(silence_s, connect=CONNECT_S),
            limits=httpx.Limits(
                max_connections=MAX_CONNECTIONS,
                max_keepalive_connections=MAX_CONNECTIONS,
                keepalive_expiry=_IDLE_S,
            ),
            trust_env=False,
        )

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def wait_caught_up(self, timeout_s: float) -> None:
        """See `SeriesStore`; what follows in this context reads at least what was acknowledged before this call.

        Raises:
            LogUnavailable: the log cannot be asked for its ends.
            RetryableError: there is no node that could be asked.
        """
        deadline_s = time.monotonic() + timeout_s
        required = tuple(self._high_watermarks())
        strong = _StrongRead(self, required, "", deadline_s)
        node, _ = self._ask("caught_up", ReadRequest("", required), answers.read_applied, strong)
        _strong_read.set(replace(strong, node=node))

    def select(
        self,
        matchers: Sequence[Matcher],
        min_time_ms: int,
        max_time_ms: int,
        max_samples: int,
        max_series: int = ANY_NUMBER,
    ) -> Selection:
        """See `SeriesStore`."""
        asked = ReadRequest("", None, 0.0, (tuple(matchers),), min_time_ms, max_time_ms, max_samples, max_series)
        return self._read("select", asked, lambda reader: answers.read_selection(reader, max_samples, max_series))

    def series(
        self,
        matcher_sets: Sequence[Sequence[Matcher]],
        min_time_ms: int,
        max_time_ms: int,
        max_series: int = ANY_NUMBER,
    ) -> LabelTable:
        """See `SeriesStore`."""
        times = min_time_ms, max_time_ms
        asked = ReadRequest("", None, 0.0, _sets(matcher_sets), *times, max_series=max_series)
        return self._read("series", asked, lambda reader: answers.read_table(reader, max_series))

    def label_names(
        self, matcher_sets: Sequence[Sequence[Matcher]], min_time_ms: int, max_time_ms: int
    ) -> list[str]:
        """See `SeriesStore`."""
        asked = ReadRequest("", None, 0.0, _sets(matcher_sets), min_time_ms, max_time_ms)
        return self._read("label_names", asked, answers.read_texts)

    def label_values(
        self, name: str, matcher_sets: Sequence[Sequence[Matcher]], min_time_ms: int, max_time_ms: int
    ) -> list[str]:
        """See `SeriesStore`."""
        asked = ReadRequest("", None, 0.0, _sets(matcher_sets), min_time_ms, max_time_ms, label=name)
        return self._read("label_values", asked, answers.read_texts)

    def metadata(self, metric: str | None) -> dict[str, list[Metadata]]:
        """See `SeriesStore`."""
        asked = ReadRequest("", None, 0.0, (), 0, 0, label=metric or "")
        return self._read("metadata", asked, answers.read_metadata)

    def exemplars(
        self, matcher_sets: Sequence[Sequence[Matcher]], min_time_ms: int, max_time_ms: int
    ) -> list[SeriesExemplars]:
        """See `SeriesStore`."""
        asked = ReadRequest("", None, 0.0, _sets(matcher_sets), min_time_ms, max_time_ms)
        return self._read("exemplars", asked, answers.read_exemplars)

    def extent(self) -> Extent:
        """See `SeriesStore`."""
        return self._read("extent", ReadRequest("", None, 0.0, (), 0, 0), answers.read_extent)

    # Choosing nodes.

    def _read(self, read: str, asked: ReadRequest, decode: Callable[[FrameReader], T]) -> T:
        strong = _strong_read.get()
        if strong is not None and strong.store is not self:
            strong = None
        if strong is not None:
            asked = replace(asked, required=strong.required)
        return self._ask(read, asked, decode, strong)[1]

    def _ask(
        self, read: str, asked: ReadRequest, decode: Callable[[FrameReader], T], strong: _StrongRead | None
    ) -> tuple[str, T]:
        """Ask one node after another; returns the name of the one that answered, and its answer.

        Raises:
            CallerError: a node says that the request is wrong.
            NotCaughtUp: no node caught up in time.
            RetryableError: no node answered; says what became of each.
        """
        deadline_s = time.monotonic() + self._timeout_s if strong is None else strong.deadline_s
        while True:
            reasons: list[str] = []
            behind: NotCaughtUp | None = None
            members = self._candidates(reasons, strong)
            for member in members:
                left_s = deadline_s - time.monotonic()
                wait_s = max(0.0, left_s if len(members) == 1 else min(left_s, TURN_S))
                try:
                    request = replace(asked, node=member.name, wait_s=min(wait_s, MAX_WAIT_S))
                    answer = self._ask_one(member, PATHS[read], request, decode, deadline_s)
                except NotCaughtUp as error:
                    READS.labels("behind").inc()
                    behind = error
                    reasons.append(f"{member.name} is behind: {error}")
                except RetryableError as error:
                    READS.labels("failed").inc()
                    self._avoid_until_s[member.name] = time.monotonic() + AVOID_S
                    reasons.append(f"{member.name} at {member.address}: {error}")
                else:
                    READS.labels("answered").inc()
                    return member.name, answer
            if behind is None or time.monotonic() + _PAUSE_S >= deadline_s:
                break
            time.sleep(_PAUSE_S)
        message = "no storage node can answer: " + "; ".join(reasons)
        raise NotCaughtUp(message) if behind is not None else RetryableError(message)

    def _candidates(self, reasons: list[str], strong: _StrongRead | None) -> list[Member]:
        """Nodes to ask, best first; the reasons against all others go to `reasons`.

        Who is alive is judged against the newest heartbeat of all and not against the clock: if Kafka is away,
        nobody's heartbeat arrives, and those that were there last are still worth asking.
        """
        nodes = self._membership.nodes()
        if not nodes:
            reasons.append(
                f"none has announced itself in {self._membership.topic.name}; start `tabor storage-node`"
            )
        newest_s = max((member.heard_s for member in nodes), default=0.0)
        now_s = time.monotonic()
        found = []
        for member in nodes:
            if member.heard_s < newest_s - LIVE_S:
                age_s = self._membership.age_s(member)
                reasons.append(f"{member.name} at {member.address} was last heard {age_s:.0f} s ago")
            elif not member.ready:
                reasons.append(f"{member.name} at {member.address} still replays the log")
            else:
                found.append(member)

        def rank(member: Member) -> tuple[bool, bool, int, str]:
            avoided = self._avoid_until_s.get(member.name, -math.inf) > now_s
            chosen = strong is not None and strong.node == member.name
            return avoided, not chosen, -sum(member.applied), member.name

        return sorted(found, key=rank)

    # One node.

    def _ask_one(
        self,
        member: Member,
        path: str,
        request: ReadRequest,
        decode: Callable[[FrameReader], T],
        deadline_s: float,
    ) -> T:
        import httpx

        body = encode_request(request)
        try:
            with self._client.stream(
                "POST",
                f"http://{member.address}{path}",
                content=body,
                headers={"Content-Type": "application/json"},
            ) as response:
                if response.status_code != 200:
                    raise _refusal(response)
                if response.headers.get("content-type") != MEDIA_TYPE:
                    raise WireError("the answer is not that of a storage node")
                return decode(FrameReader(_until(response.iter_raw(), deadline_s + GRACE_S)))
        except httpx.TimeoutException as error:
            raise RetryableError(f"no answer in time ({type(error).__name__})") from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise RetryableError(str(error) or type(error).__name__) from None


def _sets(matcher_sets: Sequence[Sequence[Matcher]]) -> tuple[tuple[Matcher, ...], ...]:
    return tuple(tuple(matchers) for matchers in matcher_sets)


def _until(chunks: Iterator[bytes], deadline_s: float) -> Iterator[bytes]:
    """The chunks, as long as there is time; a node could send signs of life for ever."""
    for chunk in chunks:
        if time.monotonic() > deadline_s:
            raise RetryableError("no whole answer in time")
        yield chunk


def _refusal(response: httpx.Response) -> Exception:
    """The error of a node that did not begin to work on the request."""
    body = bytearray()
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > _MAX_ERROR_BYTES:
            break
    try:
        error = answers.error_of(parse_object(memoryview(body)))
    except WireError:
        return RetryableError(f"HTTP status {response.status_code}")
    # Only the node's own word makes it the caller's fault, and only with the status that belongs to it.
    if isinstance(error, CallerError) and response.status_code not in (400, 413):
        return RetryableError(f"HTTP status {response.status_code}: {error}")
    return error
