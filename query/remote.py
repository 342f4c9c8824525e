"""Reads from storage nodes over HTTP: `common.store.SeriesStore` (`docs/format/read-api.md`).

Each partition is read from one of the nodes that hold it (`query.scatter`), and the answers are put together. A
node that refuses, hangs, dies or is behind is no matter as long as another one holds the partition; an answer is
whole or there is none.

A strong read learns the ends of the log first (`wait_caught_up`) and sends them with every read that follows in
the same context (`contextvars`), so that whichever node answers has applied them. Each query needs a context of
its own.
"""

from __future__ import annotations

import time
from collections import Counter as Counts
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import reduce
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

from prometheus_client import Counter

from common import request_ids, tally, tracing
from common.calling import ANONYMOUS, Caller
from common.control.members import Member
from common.errors import CallerError, RetryableError
from common.labels import LabelTable
from common.membership import Membership
from common.store import (
    ANY_NUMBER,
    Extent,
    Matcher,
    Metadata,
    Selection,
    SeriesExemplars,
    Usage,
    check_n_samples,
    check_n_series,
)
from common.wire import answers
from common.wire.evaluation import Evaluation
from common.wire.frames import MEDIA_TYPE, FrameReader, WireError, parse_object
from common.wire.matrices import StepMatrix, read_matrix
from common.wire.peers import error_body
from common.wire.requests import PATHS, ReadRequest, encode_request
from query.joining import join_metadata, join_selections, join_tables, join_texts
from query.scatter import Scatter, Terms

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

ANSWER_BYTES = Counter("tabor_query_node_answer_bytes", "Bytes of storage nodes' answers, by read", ["read"])

CONNECT_S = 1.0
SILENCE_S = 5.0
"""A node that sends nothing for that long hangs: while it works it sends a sign of life every second."""
MAX_CONNECTIONS = 200
ENDS_S = 30.0
"""How long the log may take to say where it ends: a partition whose leader has died gets another one meanwhile."""
GRACE_S = 0.5
"""How long after the deadline a node may still say that it has not caught up."""
# Shorter than the servers', so that a connection is not used in the moment in which it is closed.
_IDLE_S = 30.0


@dataclass(frozen=True, slots=True)
class _Terms:
    """On which terms the reads that follow in a context are made, of one store."""

    store: RemoteStore
    terms: Terms


_terms: ContextVar[_Terms | None] = ContextVar("tabor_read_terms", default=None)


class RemoteStore:
    """The store that the nodes of `membership` make up.

    n_partitions: of the log. high_watermarks: asks the log for the end of each, within so many s; raises
      LogUnavailable.
    timeout_s: of reads that no `wait_caught_up` gave a deadline. caller: how it shows itself to the nodes.
    """

    def __init__(
        self,
        membership: Membership,
        n_partitions: int,
        high_watermarks: Callable[[float], list[int]],
        *,
        timeout_s: float = 120.0,
        silence_s: float = SILENCE_S,
        caller: Caller = ANONYMOUS,
    ) -> None:
        import httpx

        self._scatter = Scatter(membership, n_partitions)
        self._high_watermarks = high_watermarks
        self._timeout_s = timeout_s
        self._caller = caller
        self._client = httpx.Client(
            timeout=httpx.Timeout(silence_s, connect=CONNECT_S),
            limits=httpx.Limits(
                max_connections=MAX_CONNECTIONS,
                max_keepalive_connections=MAX_CONNECTIONS,
                keepalive_expiry=_IDLE_S,
            ),
            trust_env=False,
            verify=caller.context(),
        )

    def close(self) -> None:
        """Close all connections."""
        self._scatter.close()
        self._client.close()

    def wait_caught_up(self, timeout_s: float) -> None:
        """See `SeriesStore`; what follows in this context reads at least what was acknowledged before this call.

        It does not wait itself: each read does, for its own partitions, until the time is over.

        Raises:
            LogUnavailable: the log cannot be asked for its ends.
        """
        deadline_s = time.monotonic() + timeout_s
        required = tuple(self._high_watermarks(min(timeout_s, ENDS_S)))
        _terms.set(_Terms(self, Terms(required, deadline_s)))

    def allow_partial(self) -> Mapping[int, str]:
        """See `SeriesStore`."""
        held = _terms.get()
        terms = held.terms if held is not None and held.store is self else self._eventual()
        missing: dict[int, str] = {}
        _terms.set(_Terms(self, replace(terms, missing=missing)))
        return missing

    def _eventual(self) -> Terms:
        return Terms(None, time.monotonic() + self._timeout_s)

    def select(
        self,
        matchers: Sequence[Matcher],
        min_time_ms: int,
        max_time_ms: int,
        max_samples: int,
        max_series: int = ANY_NUMBER,
    ) -> Selection:
        """See `SeriesStore`."""

        def join(found: list[Selection]) -> Selection:
            check_n_series(sum(len(one.labels) for one in found), max_series)
            check_n_samples(sum(len(one.timestamps) for one in found), max_samples)
            return join_selections(found)

        times, limits = (min_time_ms, max_time_ms), (max_samples, max_series)
        asked = ReadRequest("", (), None, 0.0, (tuple(matchers),), *times, *limits)
        return self._read("select", asked, lambda reader: answers.read_selection(reader, *limits), join)

    def series(
        self,
        matcher_sets: Sequence[Sequence[Matcher]],
        min_time_ms: int,
        max_time_ms: int,
        max_series: int = ANY_NUMBER,
    ) -> LabelTable:
        """See `SeriesStore`."""

        def join(found: list[LabelTable]) -> LabelTable:
            check_n_series(sum(map(len, found)), max_series)
            return join_tables(found)

        times = min_time_ms, max_time_ms
        asked = ReadRequest("", (), None, 0.0, _sets(matcher_sets), *times, max_series=max_series)
        return self._read("series", asked, lambda reader: answers.read_table(reader, max_series), join)

    def label_names(
        self, matcher_sets: Sequence[Sequence[Matcher]], min_time_ms: int, max_time_ms: int
    ) -> list[str]:
        """See `SeriesStore`."""
        asked = ReadRequest("", (), None, 0.0, _sets(matcher_sets), min_time_ms, max_time_ms)
        return self._read("label_names", asked, answers.read_texts, join_texts)

    def label_values(
        self, name: str, matcher_sets: Sequence[Sequence[Matcher]], min_time_ms: int, max_time_ms: int
    ) -> list[str]:
        """See `SeriesStore`."""
        asked = ReadRequest("", (), None, 0.0, _sets(matcher_sets), min_time_ms, max_time_ms, label=name)
        return self._read("label_values", asked, answers.read_texts, join_texts)

    def metadata(self, metric: str | None, tenants: Sequence[str] | None = None) -> dict[str, list[Metadata]]:
        """See `SeriesStore`."""
        whose = None if tenants is None else tuple(tenants)
        asked = ReadRequest("", (), None, 0.0, (), 0, 0, label=metric or "", tenants=whose)
        return self._read("metadata", asked, answers.read_metadata, join_metadata)

    def exemplars(
        self, matcher_sets: Sequence[Sequence[Matcher]], min_time_ms: int, max_time_ms: int
    ) -> list[SeriesExemplars]:
        """See `SeriesStore`."""
        asked = ReadRequest("", (), None, 0.0, _sets(matcher_sets), min_time_ms, max_time_ms)
        return self._read("exemplars", asked, answers.read_exemplars, lambda found: list(chain(*found)))

    def extent(self, matcher_sets: Sequence[Sequence[Matcher]] = ()) -> Extent:
        """See `SeriesStore`."""
        asked = ReadRequest("", (), None, 0.0, _sets(matcher_sets), 0, 0)
        return self._read(
            "extent", asked, answers.read_extent, lambda found: reduce(Extent.joined, found, Extent())
        )

    def births(
        self, matcher_sets: Sequence[Sequence[Matcher]], min_time_ms: int, max_time_ms: int
    ) -> dict[int, int]:
        """See `SeriesStore`."""

        def join(found: list[dict[int, int]]) -> dict[int, int]:
            total: Counts[int] = Counts()
            for one in found:
                total.update(one)
            return dict(total)

        asked = ReadRequest("", (), None, 0.0, _sets(matcher_sets), min_time_ms, max_time_ms)
        return self._read("births", asked, answers.read_births, join)

    def usage(self, *, with_samples: bool) -> Usage:
        """See `SeriesStore`."""
        asked = ReadRequest("", (), None, 0.0, (), 0, 0, label="samples" if with_samples else "")
        return self._read("usage", asked, answers.read_usage, lambda found: reduce(Usage.joined, found, Usage({})))

    def evaluate(
        self,
        evaluation: Evaluation,
        n_columns: int,
        max_samples: int,
        max_series: int,
        check: Callable[[], None],
    ) -> list[StepMatrix]:
        """See `query.pushdown.asking.Pushdown`."""
        limits = max_samples, max_series
        asked = ReadRequest("", (), None, 0.0, (), 0, 0, *limits, evaluation=evaluation)

        def decode(reader: FrameReader) -> list[StepMatrix]:
            return [read_matrix(reader, evaluation.n_steps, n_columns, max_samples)]

        return self._read("evaluate", asked, decode, lambda found: list(chain(*found)), check)

    def _read(
        self,
        read: str,
        asked: ReadRequest,
        decode: Callable[[FrameReader], T],
        join: Callable[[list[T]], T],
        check: Callable[[], None] | None = None,
    ) -> T:
        terms = _terms.get()
        if terms is None or terms.store is not self:
            terms = _Terms(self, self._eventual())

        def ask(member: Member, request: ReadRequest, sign: Callable[[], None], deadline_s: float) -> T:
            return self._ask_one(member, read, request, decode, sign, deadline_s)

        return join(self._scatter.ask(read, asked, ask, replace(terms.terms, check=check)))

    def _ask_one(
        self,
        member: Member,
        read: str,
        request: ReadRequest,
        decode: Callable[[FrameReader], T],
        sign: Callable[[], None],
        deadline_s: float,
    ) -> T:
        import httpx

        counts = tally.current()
        counts.nodes.add(member.name)
        counts.node_reads += 1
        body = encode_request(request)
        about = {"node": member.name, "server.address": member.address, "partitions": len(request.partitions)}
        try:
            with (
                tracing.span(f"read {read}", "client", **about),
                self._client.stream(
                    "POST",
                    self._caller.url(member.address, PATHS[read]),
                    content=body,
                    headers={
                        "Content-Type": "application/json",
                        **self._caller.headers(),
                        **request_ids.passed_on(),
                        **tracing.headers(),
                    },
                ) as response,
            ):
                sign()
                if response.status_code != 200:
                    raise _refusal(response)
                if response.headers.get("content-type") != MEDIA_TYPE:
                    raise WireError("the answer is not that of a storage node")
                counted = _counted(response.iter_raw(), ANSWER_BYTES.labels(read), counts)
                return decode(FrameReader(_until(counted, sign, deadline_s + GRACE_S)))
        except httpx.TimeoutException as error:
            raise RetryableError(f"no answer in time ({type(error).__name__})") from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise RetryableError(str(error) or type(error).__name__) from None


def _sets(matcher_sets: Sequence[Sequence[Matcher]]) -> tuple[tuple[Matcher, ...], ...]:
    return tuple(tuple(matchers) for matchers in matcher_sets)


def _counted(chunks: Iterator[bytes], n_bytes: Counter, counts: tally.Tally) -> Iterator[bytes]:
    for chunk in chunks:
        n_bytes.inc(len(chunk))
        counts.received_bytes += len(chunk)
        yield chunk


def _until(chunks: Iterator[bytes], sign: Callable[[], None], deadline_s: float) -> Iterator[bytes]:
    """The chunks, as long as there is time; a node could send signs of life for ever."""
    for chunk in chunks:
        sign()
        if time.monotonic() > deadline_s:
            raise RetryableError("no whole answer in time")
        yield chunk


def _refusal(response: httpx.Response) -> Exception:
    """The error of a node that did not begin to work on the request."""
    body = error_body(response.iter_raw())
    try:
        error = answers.error_of(parse_object(memoryview(body)))
    except WireError:
        return RetryableError(f"HTTP status {response.status_code}")
    # Only the node's own word makes it the caller's fault, and only with the status that belongs to it.
    if isinstance(error, CallerError) and response.status_code not in (400, 413):
        return RetryableError(f"HTTP status {response.status_code}: {error}")
    return error
