"""What only KafkaLog does: brokers that are away, topics that are missing, starts that were cut off."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from confluent_kafka import OFFSET_INVALID, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from common.errors import LogUnavailable, StartupError
from common.log.base import Append, LogRecord
from common.log.kafka import KafkaLog
from tests.conformance.test_log import offsets, read
from tests.kafka_broker import Broker, JavaBroker, free_ports

pytestmark = pytest.mark.kafka
DEADLINE_S = 60.0


def unique() -> str:
    return f"test-{uuid.uuid4().hex}"


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"


def test_an_unreachable_broker_ends_the_start_with_one_line() -> None:
    port = free_ports(1)[0]
    before = time.monotonic()
    with pytest.raises(StartupError, match=f"no Kafka broker answers at 127.0.0.1:{port}") as refused:
        KafkaLog(f"127.0.0.1:{port}", "p", 1, connect_timeout_s=1.0)
    assert time.monotonic() - before < 5.0
    assert "\n" not in str(refused.value)


def test_a_missing_topic_is_named_with_the_command_that_makes_it(kafka_broker: Broker) -> None:
    with pytest.raises(StartupError, match=r"kafka-topics.sh .* --create --topic nope.samples --partitions 4"):
        KafkaLog(kafka_broker.bootstrap, "nope", 4, create=False)


def test_a_topic_made_here_keeps_everything_unless_told_otherwise(kafka_broker: Broker) -> None:
    admin = AdminClient({"bootstrap.servers": kafka_broker.bootstrap})
    for options, expected in (
        ({}, ("-1", "-1")),
        ({"retention_ms": 3_600_000, "retention_bytes": 1 << 30}, ("3600000", str(1 << 29))),
    ):
        log = KafkaLog(kafka_broker.bootstrap, unique(), 2, **options)  # type: ignore[arg-type]
        resource = ConfigResource(ResourceType.TOPIC, log.topic)
        config = admin.describe_configs([resource])[resource].result()
        assert (config["retention.ms"].value, config["retention.bytes"].value) == expected
        assert log.retention() == tuple(None if limit == "-1" else int(limit) for limit in expected)
        log.close()


def test_a_reader_below_the_start_goes_on_at_the_start(kafka_broker: Broker) -> None:
    log = KafkaLog(kafka_broker.bootstrap, unique(), 1)
    offsets(log.append([Append(0, b"%d" % i) for i in range(10)]))
    admin = AdminClient({"bootstrap.servers": kafka_broker.bootstrap})
    where = TopicPartition(log.topic, 0, 6)
    admin.delete_records([where])[where].result()
    assert log.bounds(0) == (6, 10)
    assert (log.starts(), log.high_watermarks()) == ([6], [10])
    reader = log.reader({0: 2})
    assert [r.offset for r in read(reader, 4)] == [6, 7, 8, 9]
    reader.close()
    log.close()


def test_a_position_behind_the_end_is_an_error_and_not_a_silent_wait(kafka_broker: Broker) -> None:
    log = KafkaLog(kafka_broker.bootstrap, unique(), 1)
    offsets(log.append([Append(0, b"x")]))
    reader = log.reader({0: 1000})
    messages: list[str] = []

    def refused() -> bool:
        try:
            assert reader.poll(0.2) == []
        except LogUnavailable as error:
            messages.append(str(error))
        return bool(messages)

    wait_for(refused, "the error")
    messages.clear()
    wait_for(refused, "the error, again")
    assert "ends at 1, before the position 1000" in messages[0]
    reader.close()
    log.close()


def test_a_killed_broker_fails_appends_and_everything_goes_on_when_it_is_back(
    own_kafka_broker: JavaBroker,
) -> None:
    log = KafkaLog(own_kafka_broker.bootstrap, "p", 1, delivery_timeout_s=2.0)
    reader = log.reader({0: 0})
    acknowledged = {offsets(log.append([Append(0, b"before")]))[0]: b"before"}
    assert [r.value for r in read(reader, 1)] == [b"before"]
    own_kafka_broker.kill()
    with pytest.raises(LogUnavailable, match="Kafka did not take the records"):
        offsets(log.append([Append(0, b"during")]))
    with pytest.raises(LogUnavailable, match="bounds"):
        log.bounds(0)
    with contextlib.suppress(LogUnavailable):
        assert reader.poll(0.1) == []
    own_kafka_broker.start()

    def taken() -> bool:
        try:
            acknowledged[offsets(log.append([Append(0, b"after")]))[0]] = b"after"
        except LogUnavailable:
            return False
        return True

    wait_for(taken, "an append after the restart")
    seen: list[LogRecord] = []

    def caught_up() -> bool:
        try:
            seen.extend(reader.poll(0.5))
        except LogUnavailable:
            return False
        return max(acknowledged) in {record.offset for record in seen}

    wait_for(caught_up, "reading after the restart")
    end = log.bounds(0).high_watermark
    assert end > max(acknowledged)
    fresh = log.reader({0: 0})
    found = {record.offset: record.value for record in read(fresh, end)}
    assert acknowledged.items() <= found.items()
    assert [r.offset for r in seen] == sorted({r.offset for r in seen})
    fresh.close()
    reader.close()
    log.close()


def test_closing_while_the_broker_is_away_fails_what_was_under_way_within_the_delivery_timeout(
    own_kafka_broker: JavaBroker,
) -> None:
    log = KafkaLog(own_kafka_broker.bootstrap, "p", 1, delivery_timeout_s=1.5)
    offsets(log.append([Append(0, b"x")]))
    own_kafka_broker.kill()
    future = log.append([Append(0, b"y")])
    before = time.monotonic()
    log.close()
    assert time.monotonic() - before < 8.0
    assert isinstance(future.exception(timeout=1.0), LogUnavailable)


def test_the_ends_of_all_partitions_are_asked_for_at_once(kafka_broker: Broker) -> None:
    log = KafkaLog(kafka_broker.bootstrap, unique(), 3)
    log.append([Append(0, b"a"), Append(2, b"b"), Append(2, b"c")]).result(DEADLINE_S)
    assert log.high_watermarks() == [log.bounds(p).high_watermark for p in range(3)] == [1, 0, 2]
    log.close()
    with pytest.raises(LogUnavailable, match="is closed"):
        log.high_watermarks()


def test_an_end_that_no_leader_told_is_asked_for_again_and_never_taken_for_one(
    kafka_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As librdkafka answers while a broker is dying: a strong read on it would miss what was acknowledged."""
    log = KafkaLog(kafka_broker.bootstrap, unique(), 2)
    log.append([Append(0, b"a"), Append(1, b"b")]).result(DEADLINE_S)
    admin, n_asked = log._admin, 0

    class Dying:
        def list_offsets(
            self, wanted: dict[TopicPartition, object], **options: float
        ) -> dict[TopicPartition, object]:
            nonlocal n_asked
            n_asked += 1
            found: dict[TopicPartition, object] = admin.list_offsets(wanted, **options)
            if n_asked < 3:
                unknown: Future[SimpleNamespace] = Future()
                unknown.set_result(SimpleNamespace(offset=OFFSET_INVALID))
                found[next(where for where in found if where.partition == 1)] = unknown
            return found

        def list_topics(self, *arguments: object, **options: object) -> object:
            return admin.list_topics(*arguments, **options)

    monkeypatch.setattr(log, "_admin", Dying())
    assert log.high_watermarks() == [1, 1]
    assert n_asked == 3
    log.close()
