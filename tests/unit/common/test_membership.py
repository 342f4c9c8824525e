"""Membership over a control topic in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from common.control.events import (
    LAYOUT_KEY,
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
from common.control.members import LIVE_S, Members, seated
from common.errors import CorruptError, StartupError
from common.membership import LOG_FORMAT, Announcement, Announcer, Membership, NodeState
from common.record import RecordBatch
from common.record import encode_record as encode_log_record
from tests.memory_control import Broker
from tests.processes import wait_for


def heartbeat(node: str = "a", address: str = "h:1", *, instance: str = "i", ready: bool = True) -> Event:
    lagging = frozenset() if ready else frozenset({1})
    return Event(EventKind.HEARTBEAT, node, instance, address, {0: 5, 1: 6}, lagging, ready, 7)


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
    says = Announcement(name, address, partitions, state=lambda: state(partitions))
    return Announcer(membership, says, heartbeat_s=0.02)


def state(partitions: int = 2, *, ready: bool = True) -> NodeState:
    return NodeState(dict.fromkeys(range(partitions), 3), frozenset(), ready)


def put(broker: Broker, membership: Membership, *records: Record) -> None:
    for record in records:
        offset = broker.append(key_of(record), encode_record(record))
    assert membership.wait_position(offset + 1, 10)


def is_served(membership: Membership) -> bool:
    """Whether a live node has all partitions."""
    return not membership.uncovered(2)


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
    assert encode_log_record(batch)[4] == LOG_FORMAT


def test_records_survive_their_encoding() -> None:
    for record in (
        heartbeat(),
        heartbeat("ü", "[::1]:80", ready=False),
        stop_of("a"),
        Layout(16, 1, 3),
        Seat(0, "a", Presence.IN),
        Seat(65_535, "b", Presence.AWAY),
    ):
        assert parse_record(key_of(record), encode_record(record), 0) == record


def stop_of(node: str, instance: str = "i") -> Event:
    return Event(EventKind.STOP, node, instance, "h:1", {}, frozenset(), False, 7)


def test_records_of_later_versions_and_unknown_keys_are_passed_over_and_others_are_corrupt() -> None:
    good, seat = encode_record(heartbeat()), encode_record(Seat(1, "a", Presence.IN))
    assert parse_record("node/a", good.replace(b'"v":2', b'"v":3'), 0) is None
    assert parse_record("node/a", good.replace(b'"heartbeat"', b'"dance"'), 0) is None
    assert parse_record("ordinal/1", seat.replace(b'"in"', b'"upside down"'), 0) is None
    for key in ("a", "ordinal/01", "ordinal/-1", "ordinal/70000", "nodes/a"):
        assert parse_record(key, b"\xff", 0) is None
    for bad in (
        b"",
        b"[]",
        b"{}",
        good.replace(b'"h:1"', b'"h:1/../x"'),
        good.replace(b"[5,6]", b"[5]"),
        good.replace(b"[5,6]", b"[5,-6]"),
        good.replace(b"[0,1]", b"[1,1]"),
        good.replace(b'"ready":true', b'"ready":1'),
        good.replace(b'"node":"a"', b'"node":""'),
        good.replace(b'"node":"a"', b'"node":"b"'),
    ):
        with pytest.raises(CorruptError):
            parse_record("node/a", bad, 0)
    for key, value in ((LAYOUT_KEY, b'{"v":2,"partitions":0,"format":1,"replicas":3}'), ("ordinal/1", b'{"v":2}')):
        with pytest.raises(CorruptError):
            parse_record(key, value, 0)


def test_followers_see_nodes_come_change_and_leave(broker: Broker, follow: Follow) -> None:
    membership = follow()
    assert not is_served(membership)
    put(broker, membership, heartbeat(ready=False))
    assert [(m.name, m.ready) for m in membership.nodes()] == [("a", False)]
    assert not is_served(membership)
    put(broker, membership, heartbeat())
    assert is_served(membership)
    put(broker, membership, stop_of("a"))
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
    assert is_served(membership)
    clocks.now_s += 0.2
    assert not is_served(membership)
    # Whoever reads the topic later comes to the same end.
    assert not is_served(follow())


def test_a_late_leave_of_an_earlier_process_does_not_take_the_node_away(broker: Broker, follow: Follow) -> None:
    membership = follow()
    put(broker, membership, heartbeat(instance="first"))
    put(broker, membership, heartbeat(instance="second"))
    put(broker, membership, stop_of("a", "first"))
    assert is_served(membership)


def test_an_announcer_makes_a_node_known_until_it_leaves(broker: Broker, follow: Follow) -> None:
    membership, elsewhere = follow(), follow()
    node = announcer(membership)
    node.start()
    wait_for(lambda: is_served(elsewhere), "the node is known")
    assert elsewhere.nodes()[0].applied == {0: 3, 1: 3}
    wait_for(lambda: len(broker.records) > 3, "heartbeats go on")
    node.leave()
    wait_for(lambda: not elsewhere.nodes(), "the node has left")
    count = len(broker.records)
    node.leave()
    assert len(broker.records) == count


def test_a_node_that_becomes_ready_says_so_at_once(broker: Broker, follow: Follow) -> None:
    membership = follow()
    ready = threading.Event()
    says = Announcement("a", "h:1", 2, state=lambda: state(ready=ready.is_set()))
    node = Announcer(membership, says, heartbeat_s=3600)
    node.start()
    assert not is_served(membership)
    ready.set()
    wait_for(lambda: is_served(membership), "the node is ready")
    node.leave()


def test_a_node_with_other_partitions_or_another_format_may_not_join(broker: Broker, follow: Follow) -> None:
    membership = follow()
    put(broker, membership, Layout(2, 1, 3))
    with pytest.raises(StartupError, match=r"the log has 3 partitions, but memory\.control .* has 2"):
        announcer(membership, partitions=3).start()
    says = Announcement("a", "h:1", 2, state=state, format=2)
    with pytest.raises(StartupError, match="writes format 2"):
        Announcer(membership, says).start()
    says = Announcement("a", "h:1", 2, state=state, replicas=2)
    with pytest.raises(StartupError, match=r"--replicas is 2, but memory\.control says that this cluster keeps 3"):
        Announcer(membership, says).start()
    assert len(broker.records) == 1


def test_a_second_node_of_a_name_is_refused_while_the_first_is_alive(
    broker: Broker, follow: Follow, clocks: Clocks
) -> None:
    membership = follow()
    put(broker, membership, Layout(2, 1, 3), heartbeat())
    clocks.now_s += LIVE_S - 1
    with pytest.raises(StartupError, match=r"named 'a' is alive at h:1 \(heard 9 s ago\); choose another --name"):
        announcer(membership, address="h:2").start()
    assert len(broker.records) == 2
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
            if key == "node/a" and not any(record.value == encode_record(others) for record in broker.records):
                broker.append("node/a", encode_record(others))
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


def seats(membership: Membership) -> dict[int, tuple[str, str]]:
    return {ordinal: (seat.node, seat.presence.value) for ordinal, seat in membership.cluster().seats.items()}


def test_nodes_take_the_lowest_free_ordinals_and_keep_them_when_they_restart(follow: Follow) -> None:
    membership = follow()
    first, second = announcer(membership, "a"), announcer(membership, "b", "h:2")
    first.start()
    second.start()
    assert seats(membership) == {0: ("a", "in"), 1: ("b", "in")}
    assert membership.cluster().layout == Layout(2, 1, 3)
    for node in (first, second):
        node.leave()
    again = announcer(membership, "b", "h:2")
    again.start()
    again.leave()
    assert seats(membership) == {0: ("a", "in"), 1: ("b", "in")}


def test_of_two_nodes_that_claim_an_ordinal_at_once_one_takes_the_next(broker: Broker, follow: Follow) -> None:
    membership = follow()
    node = announcer(membership)
    node.start()
    put(broker, membership, Seat(0, "b", Presence.IN))
    wait_for(lambda: seats(membership) == {0: ("b", "in"), 1: ("a", "in")}, "the node has another seat")
    node.leave()


def test_a_node_that_was_taken_for_lost_takes_its_seat_again_and_one_that_drains_does_not(
    broker: Broker, follow: Follow
) -> None:
    membership = follow()
    node = announcer(membership)
    node.start()
    put(broker, membership, Seat(0, "a", Presence.AWAY))
    wait_for(lambda: seats(membership) == {0: ("a", "in")}, "the node is back")
    put(broker, membership, Seat(0, "a", Presence.DRAINING))
    count = len(broker.records)
    wait_for(lambda: len(broker.records) > count + 2, "heartbeats go on")
    assert seats(membership) == {0: ("a", "draining")}
    node.leave()


def test_what_the_topic_says_is_the_same_after_compaction(broker: Broker, follow: Follow) -> None:
    membership = follow()
    for number, name in enumerate("abc"):
        node = announcer(membership, name, f"h:{number}")
        node.start()
        put(broker, membership, Seat(number, "other", Presence.IN))
        wait_for(lambda n=name: name_has_seat(membership, n), "the node has another seat")
        node.leave()
    assert membership.wait_position(len(broker.records), 10)
    last = {record.key: record for record in broker.records}
    compacted = Members()
    for record in sorted(last.values()):
        assert record.value is not None
        parsed = parse_record(record.key, record.value, record.offset)
        assert parsed is not None
        compacted.apply(parsed, record.time_ms, 0.0)
    cluster = membership.cluster()
    assert (compacted.layout, dict(sorted(compacted.seats.items()))) == (cluster.layout, cluster.seats)


def name_has_seat(membership: Membership, name: str) -> bool:
    return any(seat.node == name for seat in membership.cluster().seats.values())


def test_a_node_that_has_claimed_two_seats_counts_once_and_gives_the_second_back(
    broker: Broker, follow: Follow
) -> None:
    membership = follow()
    node = announcer(membership)
    node.start()
    put(broker, membership, Seat(3, "a", Presence.IN))
    wait_for(lambda: seats(membership) == {0: ("a", "in")}, "one seat is left")
    node.leave()
    assert seated(
        {0: Seat(0, "a", Presence.DRAINING), 1: Seat(1, "b", Presence.IN), 2: Seat(2, "a", Presence.IN)}
    ) == [1]
