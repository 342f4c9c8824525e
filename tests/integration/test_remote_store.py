"""RemoteStore against real servers of the read API, whole and broken ones."""

from __future__ import annotations

import contextlib
import contextvars
import math
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from common import request_ids
from common.control.events import Event, EventKind, encode_record, key_of
from common.errors import CallerError, LogUnavailable, RetryableError
from common.labels import LabelTable, canonical_labels
from common.membership import Membership
from common.store import (
    MAX_TIME_MS,
    MIN_TIME_MS,
    Matcher,
    MatchOp,
    NotCaughtUp,
    Selection,
    SeriesStore,
    TooManySamples,
    TooManySeries,
)
from common.wire.frames import MEDIA_TYPE, Kind, frame
from query.config import QueryConfig
from query.engine.budget import Budget
from query.remote import RemoteStore
from query.service import QueryService, Wanted
from storage_node.reads_http import NodeReads
from tabor.observing import observed
from tests.memory_control import Broker
from tests.memory_store import MemoryStore
from tests.processes import wait_for
from tests.served import served

UP = [Matcher(MatchOp.EQUAL, "__name__", "up")]
EVERYTHING = (MIN_TIME_MS, MAX_TIME_MS)


@dataclass
class Node:
    """A storage node without storage: what it holds and how far it has applied is up to the test."""

    name: str
    store: Any = field(default_factory=lambda: MemoryStore([({"__name__": "up"}, [(1, 1.0), (2, 2.0)])]))
    applied: list[int] = field(default_factory=lambda: [10, 10])
    asked: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def over(self, partitions: Sequence[int]) -> Any:
        missing = [partition for partition in partitions if partition >= len(self.applied)]
        if missing:
            raise RetryableError(f"this node does not hold partition {missing[0]}")
        # All series are in the first partition.
        return self.store if 0 in partitions else MemoryStore()

    def wait_applied(self, wanted: Mapping[int, int], timeout_s: float) -> None:
        self.asked += 1
        self.over(list(wanted))
        with self.changed:
            if not self.changed.wait_for(
                lambda: all(self.applied[partition] >= offset for partition, offset in wanted.items()), timeout_s
            ):
                raise NotCaughtUp(f"{self.name} is at {self.applied}")

    def advance(self, *applied: int) -> None:
        with self.changed:
            self.applied = list(applied)
            self.changed.notify_all()


@contextlib.contextmanager
def serving(node: Node) -> Iterator[str]:
    reads = NodeReads(node.name, node, keep_alive_s=0.05)
    app = FastAPI()
    app.include_router(reads.router())
    with served(observed(app)) as address:
        try:
            yield address
        finally:
            reads.close()


class Cluster:
    """Nodes by name and address, and a RemoteStore over them."""

    def __init__(
        self,
        high_watermarks: Callable[[float], list[int]] = lambda _: [10, 10],
        *,
        backlog: Callable[[Cluster], object] = lambda cluster: None,
        **options: Any,
    ) -> None:
        self.broker = Broker()
        backlog(self)
        self.membership = Membership(self.broker.topic())
        self.membership.start()
        assert self.membership.wait_read(10)
        self.store = RemoteStore(self.membership, 2, high_watermarks, **options)

    def write(
        self, name: str, address: str, *, ready: bool = True, applied: Sequence[int] = (10, 10), age_s: float = 0.0
    ) -> int:
        held = dict(enumerate(applied))
        event = Event(EventKind.HEARTBEAT, name, name, address, held, frozenset(), ready, 0)
        self.broker.clock_ms = lambda: time.time_ns() // 1_000_000 - round(age_s * 1000)
        return self.broker.append(key_of(event), encode_record(event))

    def announce(self, name: str, address: str, *, ready: bool = True, applied: Sequence[int] = (10, 10)) -> None:
        offset = self.write(name, address, ready=ready, applied=applied)
        assert self.membership.wait_position(offset + 1, 10)

    def close(self) -> None:
        self.store.close()
        self.membership.close()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.close()


def rows(selection: Selection) -> dict[bytes, list[tuple[int, int]]]:
    """Samples by canonical label set, values as bits."""
    found = {}
    bits = selection.values.view(np.uint64).tolist()
    times = selection.timestamps.tolist()
    for row, labels in enumerate(selection.labels):
        first, end = selection.offsets[row : row + 2].tolist()
        found[canonical_labels(labels)] = list(zip(times[first:end], bits[first:end], strict=True))
    assert len(found) == len(selection.labels)
    return found


def label_sets(table: LabelTable) -> list[bytes]:
    return sorted(canonical_labels(labels) for labels in table)


NAMES = st.sampled_from(["a", "job", "ü", "a.b"])
VALUES = st.sampled_from(["", "x", "y", "ß☃", "\U0001f600" * 3, "z" * 2000])
FLOATS = st.one_of(
    st.integers(0, (1 << 64) - 1).map(lambda bits: struct.unpack("<d", struct.pack("<Q", bits))[0]),
    st.sampled_from([0.0, -0.0, math.inf, struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]]),
)
TIMES = st.one_of(st.integers(-50, 50), st.sampled_from([MIN_TIME_MS, MAX_TIME_MS]))
SERIES = st.lists(
    st.tuples(st.dictionaries(NAMES, VALUES, max_size=3), st.lists(st.tuples(TIMES, FLOATS), max_size=8)),
    max_size=8,
)
MATCHERS = st.builds(
    Matcher, st.sampled_from([MatchOp.EQUAL, MatchOp.NOT_EQUAL, MatchOp.REGEX, MatchOp.NOT_REGEX]), NAMES, VALUES
)


@pytest.fixture(scope="module")
def one_node() -> Iterator[tuple[Node, Cluster]]:
    node, cluster = Node("one"), Cluster()
    with serving(node) as address:
        cluster.announce("one", address)
        # Hypothesis may take longer than a heartbeat lasts; the only node is asked all the same.
        yield node, cluster
        cluster.close()


@settings(deadline=None, max_examples=60)
@given(SERIES, st.lists(st.lists(MATCHERS, max_size=2), max_size=2), TIMES, TIMES, NAMES)
def test_answers_are_those_of_the_node_itself_to_the_bit(
    one_node: tuple[Node, Cluster],
    series: list[tuple[dict[str, str], list[tuple[int, float]]]],
    sets: list[list[Matcher]],
    first: int,
    second: int,
    name: str,
) -> None:
    node, cluster = one_node
    local, remote = MemoryStore(series), cluster.store
    # The routes were made with the node's store; its content is exchanged.
    node.store.__dict__.update(local.__dict__)
    start, end = min(first, second), max(first, second)
    matchers = sets[0] if sets else []
    expected = local.select(matchers, start, end, 1000)
    assert rows(remote.select(matchers, start, end, 1000)) == rows(expected)
    assert label_sets(remote.series(sets, start, end)) == label_sets(local.series(sets, start, end))
    assert remote.label_names(sets, start, end) == local.label_names(sets, start, end)
    assert remote.label_values(name, sets, start, end) == local.label_values(name, sets, start, end)
    assert remote.extent() == local.extent()
    births = local.births([], MIN_TIME_MS, MAX_TIME_MS)
    assert sum(births.values()) == len(local.series([], MIN_TIME_MS, MAX_TIME_MS))
    assert remote.births([], MIN_TIME_MS, MAX_TIME_MS) == births


def test_many_samples_come_in_many_frames_and_survive_bit_by_bit(cluster: Cluster) -> None:
    generator = np.random.default_rng(5)
    counts = generator.integers(1, 2000, 300)
    n = int(counts.sum())
    labels = LabelTable.of([{"__name__": "m", "series": str(i), "host": f"host-{i % 7}"} for i in range(300)])
    times = np.concatenate([np.cumsum(generator.integers(1, 1 << 40, count)) for count in counts])
    values = generator.integers(0, 1 << 64, n, dtype=np.uint64).view(np.float64)
    selection = Selection(labels, np.concatenate(([0], np.cumsum(counts))), times, values)

    class Fixed(MemoryStore):
        def select(self, *_: Any) -> Selection:
            return selection

    with serving(Node("one", Fixed())) as address:
        cluster.announce("one", address)
        found = cluster.store.select([], 0, MAX_TIME_MS, n)
    assert len(found.timestamps) > 2 * (512 << 10) // 8
    assert rows(found) == rows(selection)


def test_errors_of_the_node_are_raised_as_they_are_here(cluster: Cluster) -> None:
    with serving(Node("one")) as address:
        cluster.announce("one", address)
        with pytest.raises(TooManySamples, match="2 samples"):
            cluster.store.select(UP, *EVERYTHING, 1)
        with pytest.raises(TooManySeries, match="more than 0 series"):
            cluster.store.select(UP, *EVERYTHING, 10, 0)
        with pytest.raises(TooManySeries, match="more than 0 series"):
            cluster.store.series([UP], *EVERYTHING, 0)

        class Refusing(MemoryStore):
            def select(self, *_: Any) -> Selection:
                raise CallerError("a regular expression is not valid")

        with serving(Node("two", Refusing())) as second:
            cluster.announce("one", address, applied=(9, 9))
            cluster.announce("two", second)
            with pytest.raises(CallerError, match="regular expression"):
                cluster.store.select(UP, *EVERYTHING, 10)


def test_text_that_cannot_be_sent_is_the_callers_fault(cluster: Cluster) -> None:
    with serving(Node("one")) as address:
        cluster.announce("one", address)
        with pytest.raises(CallerError, match="cannot be sent"):
            cluster.store.select([Matcher(MatchOp.EQUAL, "a", "\ud800")], *EVERYTHING, 10)


def test_without_a_node_the_error_names_the_topic(cluster: Cluster) -> None:
    with pytest.raises(RetryableError, match=r"announced itself in memory\.control; start `tabor storage-node`"):
        cluster.store.select(UP, *EVERYTHING, 10)


def test_a_node_that_still_replays_is_not_asked(cluster: Cluster) -> None:
    with serving(Node("one")) as address:
        cluster.announce("one", address, ready=False)
        with pytest.raises(RetryableError, match=r"one at .* still replays the log"):
            cluster.store.select(UP, *EVERYTHING, 10)


def test_a_node_long_not_heard_is_asked_only_while_nobody_is_heard() -> None:
    with serving(Node("one")) as address, socket.create_server(("127.0.0.1", 0)) as gone:
        cluster = Cluster(backlog=lambda c: c.write("one", address, age_s=60))
        try:
            assert cluster.membership.uncovered(2) == [0, 1]
            assert len(cluster.store.select(UP, *EVERYTHING, 10).labels) == 1
            cluster.announce("two", f"127.0.0.1:{gone.getsockname()[1]}", ready=False)
            with pytest.raises(
                RetryableError, match=r"one at .* was last heard 6\d s ago; two at .* still replays"
            ):
                cluster.store.select(UP, *EVERYTHING, 10)
        finally:
            cluster.close()


@contextlib.contextmanager
def tcp(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that does with each connection what the test wants."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = threading.Event()

        def serve() -> None:
            while not done.is_set():
                with contextlib.suppress(OSError):
                    connection, _ = listener.accept()
                    with connection:
                        connection.settimeout(5)
                        answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            done.set()
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def answering(body: bytes, *, status: str = "200 OK", kind: str = MEDIA_TYPE, whole: bool = True) -> Any:
    def answer(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        length = len(body) if whole else len(body) + 1000
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
        connection.sendall(head.encode() + body)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)

    return answer


def hang(connection: socket.socket) -> None:
    """Take the request and never say a word, until the other side gives up."""
    while connection.recv(1 << 16):
        pass


BROKEN = {
    "hangs": hang,
    "dies in the middle": answering(frame(Kind.KEEP_ALIVE) * 3, whole=False),
    "ends early": answering(frame(Kind.KEEP_ALIVE)),
    "is something else": answering(b"<html>", kind="text/html"),
    "answers 500": answering(b"oops", status="500 Internal Server Error", kind="text/plain"),
    "answers 404 as if it were our fault": answering(
        b'{"type":"caller","message":"no"}', status="404 Not Found", kind="application/json"
    ),
    "speaks no HTTP": lambda connection: connection.sendall(b"\x00" * 100),
    "is garbled": answering(b"\xff" * 1000),
    "is another node": answering(
        b'{"type":"unavailable","message":"this is node x"}', status="421 M", kind="application/json"
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_the_next_node_is_asked_when_one(fault: str) -> None:
    cluster = Cluster(silence_s=0.3)
    try:
        with tcp(BROKEN[fault]) as broken, serving(Node("two")) as address:
            cluster.announce("one", broken, applied=(5000, 5000))
            with pytest.raises(RetryableError, match="one at 127"):
                cluster.store.select(UP, *EVERYTHING, 10)
            cluster.store._scatter._avoid_until_s.clear()
            cluster.announce("two", address)
            assert len(cluster.store.select(UP, *EVERYTHING, 10).labels) == 1
    finally:
        cluster.close()


def test_a_refused_connection_goes_to_the_next_node_and_the_dead_one_is_avoided(cluster: Cluster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        dead = f"127.0.0.1:{sock.getsockname()[1]}"
    with serving(Node("two")) as address:
        cluster.announce("one", dead, applied=(5000, 5000))
        cluster.announce("two", address)
        assert candidates(cluster) == {0: ["one", "two"], 1: ["one", "two"]}
        assert len(cluster.store.select(UP, *EVERYTHING, 10).labels) == 1
        assert candidates(cluster) == {0: ["two", "one"], 1: ["two", "one"]}


def candidates(cluster: Cluster) -> dict[int, list[str]]:
    return cluster.store._scatter.candidates({})[0]


def test_a_node_that_works_for_long_is_waited_for() -> None:
    class Slow(MemoryStore):
        def select(self, *arguments: Any) -> Selection:
            assert not threading.Event().wait(1.0)
            return super().select(*arguments)

    cluster = Cluster(silence_s=0.4)
    try:
        with serving(Node("one", Slow([({"__name__": "up"}, [(1, 1.0)])]))) as address:
            cluster.announce("one", address)
            assert len(cluster.store.select(UP, *EVERYTHING, 10).labels) == 1
    finally:
        cluster.close()


def in_a_context(work: Callable[[], Any]) -> Any:
    return contextvars.Context().run(work)


def read_strongly(cluster: Cluster, timeout_s: float) -> Selection:
    def read() -> Selection:
        cluster.store.wait_caught_up(timeout_s)
        return cluster.store.select(UP, *EVERYTHING, 10)

    found: Selection = in_a_context(read)
    return found


def test_a_strong_read_waits_until_a_node_has_applied_the_log() -> None:
    cluster = Cluster(lambda _: [12, 10])
    try:
        node = Node("one")
        with serving(node) as address:
            cluster.announce("one", address)
            with pytest.raises(NotCaughtUp, match="one is behind"):
                read_strongly(cluster, 0.2)
            timer = threading.Timer(0.2, node.advance, (12, 10))
            timer.start()
            assert len(read_strongly(cluster, 30).labels) == 1
            assert node.applied == [12, 10]
            timer.join()
    finally:
        cluster.close()


def test_a_strong_read_goes_to_a_node_that_has_what_it_needs_whatever_the_heartbeats_say() -> None:
    cluster = Cluster(lambda _: [5000, 5000])
    behind, ahead = Node("behind", MemoryStore()), Node("ahead", applied=[5000, 5000])
    try:
        with serving(behind) as first, serving(ahead) as second:
            cluster.announce("behind", first, applied=(4999, 4999))
            cluster.announce("ahead", second, applied=(3, 3))
            assert len(read_strongly(cluster, 30).labels) == 1
            asked = behind.asked
            # An eventual read in a context of its own takes the first at hand, and waits for nobody.
            assert len(in_a_context(lambda: cluster.store.select(UP, *EVERYTHING, 10)).labels) == 0
            assert behind.asked == asked
    finally:
        cluster.close()


def test_a_strong_read_does_not_fall_back_to_a_node_that_is_behind() -> None:
    cluster = Cluster(lambda _: [12, 12])
    behind, ahead = Node("behind", MemoryStore()), Node("ahead", applied=[12, 12])
    try:
        with serving(behind) as first:
            cluster.announce("behind", first)
            with serving(ahead) as second:
                cluster.announce("ahead", second)
                assert len(read_strongly(cluster, 5).labels) == 1
            # The node that had everything is gone before the next read.
            with pytest.raises(NotCaughtUp, match=r"ahead at .*behind is behind|behind is behind.*ahead at"):
                read_strongly(cluster, 1)
    finally:
        cluster.close()


def test_what_a_strong_query_needed_is_not_asked_of_the_eventual_one_after_it() -> None:
    cluster = Cluster(lambda _: [12, 12])
    queries = QueryService(cluster.store, QueryConfig(max_concurrency=1))

    def names(store: SeriesStore, _: Budget) -> list[str]:
        return store.label_names([], *EVERYTHING)

    try:
        with serving(Node("behind")) as first:
            with serving(Node("ahead", applied=[12, 12])) as second:
                cluster.announce("ahead", second)
                assert queries.run(names, Wanted("strong")).result(30) == ["__name__"]
            cluster.announce("behind", first)
            assert queries.run(names, Wanted("eventual")).result(30) == ["__name__"]
    finally:
        queries.close()
        cluster.close()


def test_a_strong_read_fails_when_the_log_does_not_answer() -> None:
    def away(timeout_s: float) -> list[int]:
        raise LogUnavailable("Kafka is away")

    cluster = Cluster(away)
    try:
        with serving(Node("one")) as address:
            cluster.announce("one", address)
            with pytest.raises(LogUnavailable, match="Kafka is away"):
                cluster.store.wait_caught_up(5)
            assert len(cluster.store.select(UP, *EVERYTHING, 10).labels) == 1
    finally:
        cluster.close()


def test_a_partition_that_no_node_holds_fails_the_query_by_its_number(cluster: Cluster) -> None:
    with serving(Node("one")) as address:
        cluster.announce("one", address, applied=(10,))
        with pytest.raises(RetryableError, match="no storage node can answer for partition 1: none holds it"):
            cluster.store.select(UP, *EVERYTHING, 10)


def test_a_node_that_has_dropped_a_partition_since_is_passed_over(cluster: Cluster) -> None:
    with serving(Node("one", applied=[10])) as first, serving(Node("two")) as second:
        cluster.announce("one", first, applied=(5000, 5000))
        with pytest.raises(RetryableError, match="does not hold partition 1"):
            cluster.store.select(UP, *EVERYTHING, 10)
        cluster.announce("two", second)
        assert len(cluster.store.select(UP, *EVERYTHING, 10).labels) == 1


def post(address: str, body: bytes, path: str = "/internal/v1/select") -> tuple[int, bytes]:
    import httpx

    response = httpx.post(f"http://{address}{path}", content=body, trust_env=False)
    return response.status_code, response.content


UNREADABLE = [
    b'{"v":2,"wait_s":0,"partitions":[0],"required":["a"]}',
    b'{"v":2,"wait_s":0,"partitions":[0],"required":[1,2]}',
    b'{"v":2,"wait_s":0,"partitions":[1,0],"required":null}',
    b'{"v":2,"wait_s":0,"partitions":[-1],"required":null}',
]


def test_requests_that_cannot_be_read_are_refused_with_a_reason() -> None:
    with serving(Node("one")) as address:
        for body in (b"", b"[]", b"{}", b'{"v":3}', b'{"v":2,"wait_s":0}', *UNREADABLE):
            status, answer = post(address, body)
            assert status == 400
            assert b'"type":"caller"' in answer
        assert post(address, b" " * ((16 << 20) + 1))[0] == 413
        other = (
            b'{"v":2,"node":"two","partitions":[0,1],"required":null,"wait_s":0,"matcher_sets":[[]],"min_time_ms":0,'
            b'"max_time_ms":1,"max_samples":1,"max_series":1,"label":""}'
        )
        assert post(address, other)[0] == 421
        assert post(address, other.replace(b"two", b"one"))[0] == 200


def test_too_many_waiting_reads_are_refused() -> None:
    node = Node("one")
    reads = NodeReads("one", node, max_reads=1)
    app = FastAPI()
    app.include_router(reads.router())
    body = (
        b'{"v":2,"node":"one","partitions":[0,1],"required":[99,99],"wait_s":60,"matcher_sets":[[]],"min_time_ms":0,'
        b'"max_time_ms":1,"max_samples":1,"max_series":1,"label":""}'
    )
    with served(app) as address:
        threads = [threading.Thread(target=post, args=(address, body)) for _ in range(11)]
        for thread in threads:
            thread.start()
        wait_for(lambda: reads._slots._value == 0, "all slots are taken")
        assert post(address, body)[0] == 503
        node.advance(99, 99)
        for thread in threads:
            thread.join()
        reads.close()
        assert post(address, body)[0] == 503


def test_a_silent_node_is_hedged_long_before_it_is_given_up(cluster: Cluster) -> None:
    with tcp(hang) as silent, serving(Node("two")) as address:
        cluster.announce("one", silent, applied=(5000, 5000))
        cluster.announce("two", address)
        begin = time.monotonic()
        assert len(cluster.store.select(UP, *EVERYTHING, 10).labels) == 1
        assert time.monotonic() - begin < 2.0, "the limit of silence is 5 s"
        assert candidates(cluster)[0] == ["two", "one"], "the silent one is avoided"


def test_a_node_that_takes_longer_than_usual_is_hedged() -> None:
    release = threading.Event()

    class Stuck(MemoryStore):
        def select(self, *arguments: Any) -> Selection:
            assert release.wait(30)
            return super().select(*arguments)

    cluster = Cluster()
    try:
        series: Any = [({"__name__": "up"}, [(1, 1.0)])]
        with serving(Node("one", Stuck(series))) as first, serving(Node("two", MemoryStore(series))) as second:
            cluster.announce("two", second)
            for _ in range(30):
                cluster.store.select(UP, *EVERYTHING, 10)
            cluster.announce("one", first, applied=(5000, 5000))
            assert candidates(cluster)[0] == ["one", "two"]
            # It gives signs of life, and answers nothing.
            assert len(cluster.store.select(UP, *EVERYTHING, 10).labels) == 1
            release.set()
    finally:
        release.set()
        cluster.close()


def test_partitions_on_different_nodes_are_put_together(cluster: Cluster) -> None:
    class Part(Node):
        def over(self, partitions: Sequence[int]) -> Any:
            assert len(partitions) == 1
            label = {"__name__": "up", "partition": str(partitions[0]), self.name: "x"}
            return MemoryStore([(label, [(1, float(partitions[0]))])])

    with serving(Part("one")) as first, serving(Part("two")) as second:
        for name, address, partition in (("one", first, 0), ("two", second, 1)):
            event = Event(EventKind.HEARTBEAT, name, name, address, {partition: 1}, frozenset(), True, 0)
            cluster.broker.clock_ms = lambda: time.time_ns() // 1_000_000
            offset = cluster.broker.append(key_of(event), encode_record(event))
            assert cluster.membership.wait_position(offset + 1, 10)
        found = rows(cluster.store.select(UP, *EVERYTHING, 10))
        assert len(found) == 2
        assert cluster.store.label_values("partition", [UP], *EVERYTHING) == ["0", "1"]
        assert cluster.store.label_names([UP], *EVERYTHING) == ["__name__", "one", "partition", "two"]
        assert len(cluster.store.series([UP], *EVERYTHING)) == 2
        with pytest.raises(TooManySamples):
            cluster.store.select(UP, *EVERYTHING, 1)
        with pytest.raises(TooManySeries):
            cluster.store.series([UP], *EVERYTHING, 1)


def test_a_partition_without_a_node_is_missing_from_a_partial_answer_which_says_so(cluster: Cluster) -> None:
    queries = QueryService(cluster.store, QueryConfig(max_concurrency=1))
    said: list[str] = []

    def names(store: SeriesStore, budget: Budget) -> list[str]:
        found = store.label_names([], *EVERYTHING)
        said.extend(budget.warnings())
        return found

    try:
        with serving(Node("one", applied=[10])) as address:
            cluster.announce("one", address, applied=(10,))
            with pytest.raises(RetryableError, match="for partition 1: none holds it"):
                queries.run(names, Wanted("strong")).result(30)
            assert queries.run(names, Wanted("strong", partial=True)).result(30) == ["__name__"]
            assert said == [
                "partial answer, without partition 1: no storage node can answer for partition 1: none holds it"
            ]
            assert queries.run(names, Wanted("eventual", partial=True)).result(30) == ["__name__"]
            # What one query was allowed is not for the next.
            with pytest.raises(RetryableError):
                queries.run(names, Wanted("eventual")).result(30)
    finally:
        queries.close()


def test_a_storage_node_learns_the_id_of_the_request_that_a_query_came_with() -> None:
    seen: list[str] = []

    class Noting(Node):
        def over(self, partitions: Sequence[int]) -> Any:
            seen.append(request_ids.current.get())
            return super().over(partitions)

    def ask(cluster: Cluster) -> None:
        request_ids.current.set("from-the-client")
        service = QueryService(cluster.store, QueryConfig())
        try:
            found, tally = service.run(
                lambda store, budget: (store.select(UP, *EVERYTHING, 10), budget.tally), Wanted("eventual")
            ).result(10)
            assert len(found.timestamps) == 2
        finally:
            service.close()
        assert (tally.nodes, tally.partitions) == ({"a"}, 2)
        assert tally.node_reads >= 1
        assert tally.received_bytes > 0

    node = Noting("a")
    with serving(node) as address, contextlib.closing(Cluster()) as cluster:
        cluster.announce("a", address)
        contextvars.copy_context().run(ask, cluster)
    assert set(seen) == {"from-the-client"}
