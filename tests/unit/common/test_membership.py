"""Membership over a control topic in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from common.control.events import Event, EventKind, encode_event, parse_event
from common.control.members import LIVE_S
from common.errors import CorruptError, StartupError
from common.membership import LOG_FORMAT, Announcement, Announcer, Membership
from common.record import RecordBatch, encode_record
from tests.memory_control import Broker
from tests.processes import wait_for


def heartbeat(
    node: str = "a", address: str = "h:1", *, instance: str = "i", partitions: int = 2, ready: bool = True
) -> Event:
    return Event(EventKind.HEARTBEAT, node, instance, address, partitions, 1, (5,) * partitions, ready, 7)


class Clocks:
    """Wall and monotonic clock in step; both stand still."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return round(self.now_s * 1000) + 5_000_000


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def broker(clocks: Clocks) -> Broker:
    return Broker(clocks.wall_ms)


Follow = Callable[[], Membership]


@pytest.fixture
def follow(broker: Broker, clocks: Clocks) -> Iterator[Follow]:
    started = []

    def start() -> Membership:
        membership = Membership(broker.topic(), clock=clocks.monotonic, wall_ms=clocks.wall_ms)
        membership.start()
        started.append(membership)
        assert membership.wait_read(10)
        return membership

    yield start
    for membership in started:
        membership.close()


def announcer(membership: Membership, name: str = "a", address: str = "h:1", partitions: int = 2) -> Announcer:
    says = Announcement(name, address, partitions, state=lambda: ([3] * partitions, True))
    return Announcer(membership, says, heartbeat_s=0.02)


def put(broker: Broker, membership: Membership, event: Event) -> None:
    offset = broker.append(event.node, encode_event(event))
    assert membership.wait_position(offset + 1, 10)


def test_the_format_that_nodes_announce_is_that_of_the_records() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    batch = RecordBatch(
        1,
        1,
        nothing.astype(np.uint32),
        np.zeros((0, 16), np.uint8),
        np.zeros(1, np.int64),
        np.zeros(0, np.uint8),
        nothing.astype(np.uint32),
        nothing,
        nothing.astype(np.float64),
    )
    assert encode_record(batch)[4] == LOG_FORMAT


def test_an_event_survives_its_encoding() -> None:
    for event in (heartbeat(), heartbeat("ü", "[::1]:80", ready=False), Event(*leave_of("a"))):
        assert parse_event(encode_event(event), 0) == event


def leave_of(
    node: str, instance: str = "i"
) -> tuple[EventKind, str, str, str, int, int, tuple[int, ...], bool, int]:
    return EventKind.LEAVE, node, instance, "h:1", 2, 1, (), False, 7


def test_events_of_later_versions_and_kinds_are_passed_over_and_others_are_corrupt() -> None:
    good = encode_event(heartbeat())
    assert parse_event(good.replace(b'"v":1', b'"v":2'), 0) is None
    assert parse_event(good.replace(b'"heartbeat"', b'"drain"'), 0) is None
    for bad in (
        b"",
        b"[]",
        b"{}",
        good.replace(b'"h:1"', b'"h:1/../x"'),
        good.replace(b"[5,5]", b"[5]"),
        good.replace(b"[5,5]", b"[5,-5]"),
        good.replace(b'"ready":true', b'"ready":1'),
        good.replace(b'"node":"a"', b'"node":""'),
    ):
        with pytest.raises(CorruptError):
            parse_event(bad, 0)


def test_followers_see_nodes_come_change_and_leave(broker: Broker, follow: Follow) -> None:
    membership = follow()
    assert not membership.has_ready_node()
    put(broker, membership, heartbeat(ready=False))
    assert [(m.name, m.ready) for m in membership.nodes()] == [("a", False)]
    assert not membership.has_ready_node()
    put(broker, membership, heartbeat())
    assert membership.has_ready_node()
    put(broker, membership, Event(*leave_of("a")))
    assert membership.nodes() == []


def test_a_garbled_event_is_passed_over(broker: Broker, follow: Follow) -> None:
    membership = follow()
    broker.append("x", b"\xff")
    put(broker, membership, heartbeat())
    assert [m.name for m in membership.nodes()] == ["a"]


def test_a_node_counts_as_gone_ten_seconds_after_its_last_heartbeat(
    broker: Broker, follow: Follow, clocks: Clocks
) -> None:
    membership = follow()
    put(broker, membership, heartbeat())
    clocks.now_s += LIVE_S - 0.1
    assert membership.has_ready_node()
    clocks.now_s += 0.2
    assert not membership.has_ready_node()
    # Whoever reads the topic later comes to the same end.
    assert not follow().has_ready_node()


def test_a_late_leave_of_an_earlier_process_does_not_take_the_node_away(broker: Broker, follow: Follow) -> None:
    membership = follow()
    put(broker, membership, heartbeat(instance="first"))
    put(broker, membership, heartbeat(instance="second"))
    put(broker, membership, Event(*leave_of("a", "first")))
    assert membership.has_ready_node()


def test_an_announcer_makes_a_node_known_until_it_leaves(broker: Broker, follow: Follow) -> None:
    membership, elsewhere = follow(), follow()
    node = announcer(membership)
    node.start()
    wait_for(elsewhere.has_ready_node, "the node is known")
    assert elsewhere.nodes()[0].applied == (3, 3)
    wait_for(lambda: len(broker.records) > 3, "heartbeats go on")
    node.leave()
    wait_for(lambda: not elsewhere.nodes(), "the node has left")
    count = len(broker.records)
    node.leave()
    assert len(broker.records) == count


def test_a_node_that_becomes_ready_says_so_at_once(broker: Broker, follow: Follow) -> None:
    membership = follow()
    ready = threading.Event()
    says = Announcement("a", "h:1", 2, state=lambda: ([0, 0], ready.is_set()))
    node = Announcer(membership, says, heartbeat_s=3600)
    node.start()
    assert not membership.has_ready_node()
    ready.set()
    wait_for(membership.has_ready_node, "the node is ready")
    node.leave()


def test_a_node_with_other_partitions_or_another_format_may_not_join(broker: Broker, follow: Follow) -> None:
    membership = follow()
    put(broker, membership, Event(*leave_of("gone")))
    with pytest.raises(StartupError, match=r"the log has 3 partitions, but memory\.control .* has 2"):
        announcer(membership, partitions=3).start()
    says = Announcement("a", "h:1", 2, state=lambda: ([0, 0], True), format=2)
    with pytest.raises(StartupError, match="writes format 2"):
        Announcer(membership, says).start()
    assert len(broker.records) == 1


def test_a_second_node_of_a_name_is_refused_while_the_first_is_alive(
    broker: Broker, follow: Follow, clocks: Clocks
) -> None:
    membership = follow()
    put(broker, membership, heartbeat())
    clocks.now_s += LIVE_S - 1
    with pytest.raises(StartupError, match=r"named 'a' is alive at h:1 \(heard 9 s ago\); choose another --name"):
        announcer(membership, address="h:2").start()
    assert len(broker.records) == 1
    # A restart at the same address is no second node.
    restarted = announcer(membership)
    restarted.start()
    restarted.leave()
    put(broker, membership, heartbeat())
    clocks.now_s += LIVE_S
    moved = announcer(membership, address="h:2")
    moved.start()
    assert membership.nodes()[0].address == "h:2"
    moved.leave()


def test_of_two_nodes_that_join_at_once_the_first_in_the_topic_stays(broker: Broker, follow: Follow) -> None:
    membership = follow()
    others = heartbeat(address="h:9", instance="other")

    class Slow(type(membership.topic)):  # type: ignore[misc]
        """Somebody else's record arrives just before ours."""

        def send(self, key: str, value: bytes | None) -> object:
            if not any(record.value == encode_event(others) for record in broker.records):
                broker.append("a", encode_event(others))
            return super().send(key, value)

    membership.topic.__class__ = Slow
    with pytest.raises(StartupError, match="is alive at h:9"):
        announcer(membership).start()
    assert [(m.name, m.address) for m in membership.nodes()] == [("a", "h:9")]


def test_followers_go_on_when_the_topic_comes_back(broker: Broker, follow: Follow) -> None:
    membership = follow()
    node = announcer(membership)
    node.start()
    broker.away = True
    time.monotonic()
    count = len(broker.records)
    broker.away = False
    wait_for(lambda: len(broker.records) > count + 2, "heartbeats go on")
    wait_for(lambda: membership.wait_position(count + 2, 0.1), "they are read")
    node.leave()


def test_a_topic_that_does_not_answer_is_a_startup_error(broker: Broker) -> None:
    broker.away = True
    membership = Membership(broker.topic())
    membership.start()
    try:
        with pytest.raises(StartupError, match="is Kafka well"):
            announcer(membership).start(0.2)
    finally:
        membership.close()
