"""The control topic on Kafka: `<prefix>.control`, one partition, compacted."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AclOperation, AdminClient, NewTopic

from common.control.base import ControlRecord
from common.errors import LogUnavailable, StartupError
from common.log.kafka_user import READ, WRITE, KafkaUser, concerns_groups

DELIVERY_TIMEOUT_S = 8.0
_REQUEST_TIMEOUT_S = 5.0
_POLL_RECORDS = 1000
TOPIC_CONFIG = {
    "cleanup.policy": "compact",
    # The broker's clock decides who is alive, so that the nodes' own need not agree.
    "message.timestamp.type": "LogAppendTime",
    # Heartbeats are many and only the last of each node matters: small segments, compacted soon.
    "segment.ms": "600000",
    "segment.bytes": str(16 << 20),
    "min.cleanable.dirty.ratio": "0.1",
}
# What libraries say goes where KafkaLog sends it.
_rdkafka_log = logging.getLogger("tabor.librdkafka")
_rdkafka_log.addHandler(logging.NullHandler())
_rdkafka_log.propagate = False


class KafkaControlTopic:
    """See `common.control.base.ControlTopic`. The topic is made if it is missing.

    options: librdkafka's, as for the log. writes: whether `send` will be called; the user needs the right for it.
    Raises:
        StartupError: no broker answers or lets us in, an option is wrong, a right is missing, or the topic has
          several partitions.
    """

    def __init__(
        self,
        bootstrap: str,
        prefix: str,
        *,
        options: Mapping[str, str],
        timeout_s: float = 10.0,
        writes: bool = True,
    ) -> None:
        self._name = f"{prefix}.control"
        self._user = KafkaUser(bootstrap, options)
        self._config = {
            "reconnect.backoff.max.ms": 1000,
            **options,
            "bootstrap.servers": bootstrap,
            "client.id": "tabor-control",
            "logger": _rdkafka_log,
            "error_cb": self._user.on_error,
        }
        try:
            self._make_topic([READ, WRITE] if writes else [READ], timeout_s)
            self._producer = self._open_producer() if writes else None
            self._consumer = Consumer(
                {
                    **self._config,
                    "group.id": "tabor-unused",
                    "enable.auto.commit": False,
                    "enable.auto.offset.store": False,
                    "auto.offset.reset": "earliest",
                    # Says where the end is even if compaction took the last records away.
                    "enable.partition.eof": True,
                    "fetch.wait.max.ms": 100,
                    "fetch.error.backoff.ms": 100,
                }
            )
        except KafkaException as error:
            raise StartupError(f"the topic {self._name!r} cannot be used: {error.args[0].str()}") from None
        self._position = 0
        self._consumer.assign([TopicPartition(self._name, 0, 0)])
        self._closed = threading.Event()
        self._reports = threading.Thread(target=self._serve_reports, name="tabor-control-kafka", daemon=True)
        self._reports.start()

    def _open_producer(self) -> Any:
        return Producer(
            {
                **self._config,
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 0,
                "message.timeout.ms": int(DELIVERY_TIMEOUT_S * 1000),
            }
        )

    def _make_topic(self, rights: Sequence[AclOperation], timeout_s: float) -> None:
        admin = AdminClient(self._config)
        deadline = time.monotonic() + timeout_s
        self._user.metadata(admin, timeout_s)
        self._user.check_rights(admin, self._name, rights, timeout_s)
        topic = NewTopic(self._name, num_partitions=1, replication_factor=-1, config=TOPIC_CONFIG)
        while (partitions := self._count_partitions(admin, timeout_s)) == 0:
            if time.monotonic() > deadline:
                raise StartupError(f"the topic {self._name!r} has no leader after {timeout_s:g} s")
            try:
                admin.create_topics([topic], request_timeout=timeout_s)[self._name].result()
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise self._user.cannot_create(self._name, error.args[0]) from None
            admin.poll(0.05)
        if partitions != 1:
            raise StartupError(f"the topic {self._name!r} has {partitions} partitions; it must have one")

    def _count_partitions(self, admin: Any, timeout_s: float) -> int:
        """Partitions of the topic, 0 while it does not exist or has no leader."""
        found = self._user.metadata(admin, timeout_s).topics.get(self._name)
        if found is None or found.error is not None or any(p.leader < 0 for p in found.partitions.values()):
            return 0
        return len(found.partitions)

    @property
    def name(self) -> str:
        return self._name

    @property
    def position(self) -> int:
        return self._position

    def send(self, key: str, value: bytes | None) -> Future[int]:
        assert self._producer is not None, "the topic was opened with writes=False"
        future: Future[int] = Future()
        future.set_running_or_notify_cancel()
        try:
            self._producer.produce(
                self._name, key=key.encode(), value=value, partition=0, on_delivery=partial(_delivered, future)
            )
        except (BufferError, KafkaException) as error:
            future.set_exception(LogUnavailable(f"{self._name} takes no records: {error}"))
        return future

    def end(self) -> int:
        try:
            _, end = self._consumer.get_watermark_offsets(
                TopicPartition(self._name, 0), timeout=_REQUEST_TIMEOUT_S
            )
        except (KafkaException, RuntimeError) as error:
            raise LogUnavailable(f"the end of {self._name} is not known: {error}") from None
        return int(end)

    def poll(self, timeout_s: float) -> list[ControlRecord]:
        try:
            # Asked for many, librdkafka waits until it has that many; so it is asked for one first.
            messages = self._consumer.consume(1, timeout_s)
            messages += self._consumer.consume(_POLL_RECORDS, 0.0) if messages else []
        except (KafkaException, RuntimeError) as refused:
            raise LogUnavailable(f"{self._name} cannot be read: {refused}") from None
        found: list[ControlRecord] = []
        failure: str | None = None
        for message in messages:
            error = message.error()
            if error is None:
                self._position = message.offset() + 1
                # Keys and values of others' making are not ours to judge here.
                key = (message.key() or b"").decode(errors="replace")
                kind, time_ms = message.timestamp()
                found.append(
                    ControlRecord(
                        message.offset(), key, message.value(), 0 if kind == TIMESTAMP_NOT_AVAILABLE else time_ms
                    )
                )
            elif error.code() == KafkaError._PARTITION_EOF:
                self._position = max(self._position, message.offset())
            elif not concerns_groups(error):
                failure = error.str()
        # What was read is behind the consumer's position, and would not come again.
        if failure is not None and not found:
            raise LogUnavailable(f"{self._name} cannot be read: {failure}")
        return found

    def close(self) -> None:
        if self._closed.is_set():
            return
        if self._producer is not None:
            self._producer.flush(_REQUEST_TIMEOUT_S)
        self._closed.set()
        self._reports.join()
        self._consumer.close()

    def _serve_reports(self) -> None:
        while self._producer is not None and not self._closed.is_set():
            self._producer.poll(0.1)


def _delivered(future: Future[int], error: KafkaError | None, message: Any) -> None:
    with contextlib.suppress(RuntimeError):
        if error is None:
            future.set_result(message.offset())
        else:
            future.set_exception(LogUnavailable(f"the control topic did not take a record: {error.str()}"))
