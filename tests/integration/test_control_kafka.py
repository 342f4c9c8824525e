"""The control topic on a real broker."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from common.control.base import ControlRecord
from common.control.kafka import KafkaControlTopic
from common.errors import StartupError
from common.membership import Announcement, Announcer, Membership, NodeState
from tests.kafka_broker import Broker
from tests.processes import free_port, wait_for

pytestmark = pytest.mark.kafka


@pytest.fixture
def prefix() -> str:
    return f"control-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def topic(kafka_broker: Broker, prefix: str) -> Iterator[KafkaControlTopic]:
    topic = KafkaControlTopic(kafka_broker.bootstrap, prefix, options={})
    yield topic
    topic.close()


def read(topic: KafkaControlTopic, count: int) -> list[ControlRecord]:
    found: list[ControlRecord] = []

    def enough() -> bool:
        found.extend(topic.poll(0.1))
        return len(found) >= count

    wait_for(enough, f"{count} records")
    return found


def test_records_come_back_in_order_with_the_brokers_time(
    kafka_broker: Broker, topic: KafkaControlTopic, prefix: str
) -> None:
    assert topic.end() == 0
    offsets = [
        topic.send("ü", b"1").result(30),
        topic.send("b", b"2").result(30),
        topic.send("b", None).result(30),
    ]
    assert offsets == [0, 1, 2]
    found = read(topic, 3)
    assert [(r.offset, r.key, r.value) for r in found] == [(0, "ü", b"1"), (1, "b", b"2"), (2, "b", None)]
    assert all(r.time_ms > 1_600_000_000_000 for r in found)
    assert topic.position == topic.end() == 3
    second = KafkaControlTopic(kafka_broker.bootstrap, prefix, options={})
    assert read(second, 3) == found
    second.close()


def test_the_topic_is_made_compacted_and_keeps_the_brokers_time(
    kafka_broker: Broker, topic: KafkaControlTopic
) -> None:
    admin = AdminClient({"bootstrap.servers": kafka_broker.bootstrap})
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic.name)
    config = admin.describe_configs([resource])[resource].result(30)
    assert config["cleanup.policy"].value == "compact"
    assert config["message.timestamp.type"].value == "LogAppendTime"


def test_a_topic_of_several_partitions_is_refused(kafka_broker: Broker, prefix: str) -> None:
    admin = AdminClient({"bootstrap.servers": kafka_broker.bootstrap})
    admin.create_topics([NewTopic(f"{prefix}.control", num_partitions=2)])[f"{prefix}.control"].result(30)
    with pytest.raises(StartupError, match="has 2 partitions; it must have one"):
        KafkaControlTopic(kafka_broker.bootstrap, prefix, options={})


def test_a_broker_that_is_not_there_is_a_startup_error() -> None:
    with pytest.raises(StartupError, match="no Kafka broker answers"):
        KafkaControlTopic(f"127.0.0.1:{free_port()}", "p", options={}, timeout_s=0.5)


def test_nodes_announce_themselves_over_kafka_and_leave(
    kafka_broker: Broker, topic: KafkaControlTopic, prefix: str
) -> None:
    theirs = KafkaControlTopic(kafka_broker.bootstrap, prefix, options={})
    here, there = Membership(topic), Membership(theirs)
    here.start()
    there.start()
    state = NodeState({0: 1, 1: 2}, frozenset(), ready=True)
    node = Announcer(here, Announcement("a", "h:1", 2, state=lambda: state))
    second = Announcer(there, Announcement("a", "h:2", 2, state=lambda: state))
    try:
        node.start()
        wait_for(lambda: not there.uncovered(2), "the node is known")
        with pytest.raises(StartupError, match="is alive at h:1"):
            second.start()
        node.leave()
        wait_for(lambda: not there.nodes(), "the node has left")
    finally:
        node.leave()
        here.close()
        there.close()
        theirs.close()


class _Message:
    """One that a consumer gave: a record, or an error."""

    def __init__(self, offset: int, error: int | None = None) -> None:
        self._offset = offset
        self._error = None if error is None else KafkaError(error)

    def error(self) -> KafkaError | None:
        return self._error

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes:
        return b"key"

    value = key

    def timestamp(self) -> tuple[int, int]:
        return TIMESTAMP_LOG_APPEND_TIME, 1


@pytest.mark.parametrize("error", [KafkaError._TRANSPORT, KafkaError.GROUP_AUTHORIZATION_FAILED])
def test_records_that_come_after_an_error_are_not_lost(
    topic: KafkaControlTopic, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """The consumer has them behind it: nobody would see them again."""
    batches = iter([[_Message(0, error)], [_Message(0), _Message(1)]])
    with monkeypatch.context() as patched:
        patched.setattr(topic, "_consumer", SimpleNamespace(consume=lambda *_: next(batches)))
        assert [record.offset for record in topic.poll(0.0)] == [0, 1]
    assert topic.position == 2
