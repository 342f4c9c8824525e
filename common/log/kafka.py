"""KafkaLog: the log as one topic of a Kafka cluster, `<prefix>.samples`.

    append ──► librdkafka's queue ──► brokers (acks=all, idempotent) ──► delivery reports
                                                                          └─ poll thread ──► futures
    reader ──► a consumer of its own: assign() and offsets given by the caller; no group, nothing committed

The message's value is a Tabor record; key and headers are empty.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec

from common.errors import LogUnavailable, StartupError
from common.events import EventLog
from common.log.base import DEFAULT_PARTITIONS, Append, Bounds
from common.log.checks import check_positions, check_records
from common.log.kafka_reader import KafkaLogReader
from common.log.kafka_user import READ, WRITE, KafkaUser
from common.log.metrics import FAILED_APPENDS

DEFAULT_DELIVERY_TIMEOUT_S = 30.0
DEFAULT_CONNECT_TIMEOUT_S = 10.0
DEFAULT_QUEUED_BYTES = 64 << 20
MAX_QUEUED_RECORDS = 200_000
_REQUEST_TIMEOUT_S = 5.0
_ATTEMPT_S = 0.5
_POLL_S = 0.1
_RETRY_S = 0.05
_SAME_ERROR_S = 30.0

# Options that the log's guarantees rest on.
_FIXED = {
    "bootstrap.servers": "it is in the URL before the prefix",
    "acks": "an acknowledged record is on all in-sync replicas",
    "request.required.acks": "an acknowledged record is on all in-sync replicas",
    "enable.idempotence": "retries must not write a record twice",
    "enable.auto.commit": "storage nodes keep their offsets themselves",
    "enable.auto.offset.store": "storage nodes keep their offsets themselves",
    "auto.offset.reset": "a lost position must be seen",
    "transactional.id": "records are not written in transactions",
}

_log = EventLog("log")
# librdkafka's own lines repeat what the error callback says; whoever wants them sets this logger up.
_rdkafka_log = logging.getLogger("tabor.librdkafka")
_rdkafka_log.addHandler(logging.NullHandler())
_rdkafka_log.propagate = False


class _Pending:
    """An append whose delivery reports are not all there yet."""

    __slots__ = ("future", "left", "offsets", "reason", "size_bytes")

    def __init__(self, count: int, size_bytes: int) -> None:
        self.future: Future[list[int]] = Future()
        self.future.set_running_or_notify_cancel()
        self.offsets = [-1] * count
        self.left = count
        self.size_bytes = size_bytes
        self.reason: str | None = None


class KafkaLog:
    """A log on the brokers `bootstrap` ('host:port,host:port').

    partitions: None takes those of an existing topic, DEFAULT_PARTITIONS for a new one.
    options: librdkafka's, for SASL, TLS and the like; those that the guarantees rest on cannot be set.
    create: whether a missing topic is made, with the cluster's default replication and, unless
      retention_ms or retention_bytes (of the whole log) are given, without any retention.
    delivery_timeout_s: after this an append that no broker took fails.
    reads, writes: what will be done with it; where neither is, only its bounds can be asked for.
    Raises:
        StartupError: no broker answers or lets us in, an option is wrong, a right is missing, or the topic is
          missing or has other partitions.
    """

    def __init__(
        self,
        bootstrap: str,
        prefix: str,
        partitions: int | None,
        *,
        options: Mapping[str, str] | None = None,
        create: bool = True,
        retention_ms: int | None = None,
        retention_bytes: int | None = None,
        delivery_timeout_s: float = DEFAULT_DELIVERY_TIMEOUT_S,
        connect_timeout_s: float = DEFAULT_CONNECT_TIMEOUT_S,
        max_queued_bytes: int = DEFAULT_QUEUED_BYTES,
        reads: bool = True,
        writes: bool = True,
    ) -> None:
        self.topic = f"{prefix}.samples"
        self._bootstrap = bootstrap
        self._options = dict(options or {})
        self._delivery_timeout_s = delivery_timeout_s
        self._max_queued_bytes = max_queued_bytes
        for name in self._options:
            if name in _FIXED:
                raise StartupError(f"the Kafka option {name!r} cannot be set: {_FIXED[name]}")
        self._user = KafkaUser(bootstrap, self._options)
        self._rights = [right for right, used in ((READ, reads), (WRITE, writes)) if used]
        self._started = False
        self._said_at_s: dict[int, float] = {}
        self._failed_for_good = False
        try:
            self._asker = Consumer(self._consumer_config())
            self._admin = admin = AdminClient(self._config())
        except KafkaException as error:
            raise StartupError(f"Kafka options are wrong: {_text(error)}") from None
        try:
            retention = {
                "retention.ms": str(-1 if retention_ms is None else retention_ms),
                "retention.bytes": retention_bytes,
            }
            self._partitions = self._agree_on_partitions(admin, partitions, create, retention, connect_timeout_s)
            # Made last: an idempotent producer asks for rights of its own as soon as it has a broker.
            self._producer: Any = Producer(self._producer_config()) if writes else None
        except KafkaException as error:
            self._asker.close()
            raise StartupError(f"Kafka options are wrong: {_text(error)}") from None
        except BaseException:
            self._asker.close()
            raise

        # Guards the order of records within a partition and the counts below.
        self._lock = threading.Lock()
        self._queued_bytes = 0
        self._queued_records = 0
        self._acked_ends = [0] * self._partitions
        self._closing = False
        self._closed = threading.Event()
        self._retired: deque[Any] = deque()
        self._started = True
        self._poller = threading.Thread(
            target=self._poll if writes else self._closed.wait, name="tabor-log-kafka", daemon=True
        )
        self._poller.start()

    # Configuration and start.

    def _config(self) -> dict[str, Any]:
        return {
            "reconnect.backoff.max.ms": 1000,
            "socket.keepalive.enable": True,
            **self._options,
            "bootstrap.servers": self._bootstrap,
            "client.id": "tabor",
            "logger": _rdkafka_log,
            "error_cb": self._on_error,
        }

    def _producer_config(self) -> dict[str, Any]:
        return {
            # Whoever appends has grouped records already.
            "linger.ms": 0,
            # Finds nothing in one record, which is zstd already, but a third where small ones wait in a batch.
            "compression.type": "lz4",
            **self._config(),
            "error_cb": self._on_producer_error,
            "acks": "all",
            "enable.idempotence": True,
            "message.timeout.ms": int(self._delivery_timeout_s * 1000),
            # Beyond what `append` lets in, so that an append is never cut in the middle.
            "queue.buffering.max.kbytes": 2 * self._max_queued_bytes // 1024 + 4096,
            "queue.buffering.max.messages": 2 * MAX_QUEUED_RECORDS,
        }

    def _consumer_config(self) -> dict[str, Any]:
        return {
            "fetch.wait.max.ms": 100,
            "fetch.queue.backoff.ms": 10,
            "fetch.error.backoff.ms": 100,
            "queued.max.messages.kbytes": 32 << 10,
            # Required by librdkafka; no group is joined.
            "group.id": "tabor-unused",
            **self._config(),
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_uncommitted",
        }

    def _on_error(self, error: KafkaError) -> None:
        self._user.on_error(error)
        # Every client reports every attempt to reconnect; the same kind of error is said once in a while.
        now_s = time.monotonic()
        if self._started and now_s > self._said_at_s.get(error.code(), 0.0) + _SAME_ERROR_S:
            self._said_at_s[error.code()] = now_s
            # An exception from here would come out of the poll thread's poll and end it.
            with contextlib.suppress(OSError, ValueError):
                _log.warning("kafka_error", error=error.str(), code=error.name())

    def _on_producer_error(self, error: KafkaError) -> None:
        self._on_error(error)
        if error.fatal():
            self._failed_for_good = True

    def _agree_on_partitions(
        self, admin: Any, wanted: int | None, create: bool, retention: dict[str, Any], timeout_s: float
    ) -> int:
        deadline = time.monotonic() + timeout_s
        found = self._count_partitions(admin, deadline)
        exists = self._user.check_rights(admin, self.topic, self._rights, _REQUEST_TIMEOUT_S)
        if found == 0:
            if not create and not exists:
                raise StartupError(
                    f"there is no topic {self.topic!r} at {self._bootstrap}; create it with"
                    f" kafka-topics.sh --bootstrap-server {self._bootstrap} --create --topic {self.topic}"
                    f" --partitions {wanted or DEFAULT_PARTITIONS} --config retention.ms=-1"
                )
            if not exists:
                self._create_topic(admin, wanted or DEFAULT_PARTITIONS, retention, deadline)
            while (found := self._count_partitions(admin, deadline)) == 0:
                if time.monotonic() > deadline:
                    raise StartupError(
                        f"the topic {self.topic!r} has no leader for all partitions after {timeout_s:g} s"
                    )
                self._asker.poll(0.05)
        if wanted is not None and found != wanted:
            raise StartupError(
                f"the topic {self.topic!r} has {found} partitions, not {wanted};"
                " their number is fixed when a log is made"
            )
        return found

    def _count_partitions(self, admin: Any, deadline: float) -> int:
        """Partitions of the topic, 0 if it does not exist or not all of them have a leader yet."""
        metadata = self._user.metadata(admin, max(0.1, deadline - time.monotonic()))
        topic = metadata.topics.get(self.topic)
        if topic is None or topic.error is not None or any(p.leader < 0 for p in topic.partitions.values()):
            return 0
        return len(topic.partitions)

    def _create_topic(self, admin: Any, partitions: int, retention: dict[str, Any], deadline: float) -> None:
        config = {"retention.ms": retention["retention.ms"], "cleanup.policy": "delete"}
        total = retention["retention.bytes"]
        # Kafka limits each partition by itself.
        config["retention.bytes"] = "-1" if total is None else str(max(1, total // partitions))
        topic = NewTopic(self.topic, num_partitions=partitions, replication_factor=-1, config=config)
        timeout_s = max(1.0, deadline - time.monotonic())
        try:
            admin.create_topics([topic], request_timeout=timeout_s)[self.topic].result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise self._user.cannot_create(self.topic, error.args[0]) from None
        else:
            _log.info("topic_made", topic=self.topic, partitions=partitions, about="their number is fixed now")

    # The contract.

    @property
    def partitions(self) -> int:
        return self._partitions

    def append(self, records: Sequence[Append]) -> Future[list[int]]:
        size = check_records(records, self._partitions)
        pending = _Pending(len(records), size)
        if not records:
            pending.future.set_result([])
            return pending.future
        assert self._producer is not None, "the log was opened with writes=False"
        with self._lock:
            if self._closing:
                raise LogUnavailable("the log is closed")
            too_many_bytes = self._queued_bytes + size > self._max_queued_bytes and self._queued_records > 0
            if too_many_bytes or self._queued_records + len(records) > MAX_QUEUED_RECORDS:
                raise LogUnavailable(
                    f"the log's queue is full: {self._queued_records} records, {self._queued_bytes} bytes wait"
                )
            self._queued_bytes += size
            self._queued_records += len(records)
            if self._failed_for_good:
                self._renew_producer()
            refused = self._produce(records, pending)
        if refused is not None:
            index, reason = refused
            # The records before it are on their way; the rest counts as deliveries that failed.
            self._settle(pending, len(records) - index, reason)
        return pending.future

    def _produce(self, records: Sequence[Append], pending: _Pending) -> tuple[int, str] | None:
        """Hand records to librdkafka; return the index of the first that it refused and why, else None."""
        for index, (partition, value) in enumerate(records):
            report = partial(self._delivered, pending, index)
            try:
                self._producer.produce(self.topic, value=value, partition=partition, on_delivery=report)
            except (BufferError, KafkaException) as error:
                return index, str(error)
        return None

    def reader(self, positions: Mapping[int, int]) -> KafkaLogReader:
        check_positions(positions, self._partitions)
        return KafkaLogReader(self.topic, self._consumer_config(), positions, self._closed)

    def bounds(self, partition: int) -> Bounds:
        check_positions({partition: 0}, self._partitions)
        with self._lock:
            if self._closing:
                raise LogUnavailable("the log is closed")
            acked_end = self._acked_ends[partition]
        where = TopicPartition(self.topic, partition)
        deadline = time.monotonic() + _REQUEST_TIMEOUT_S
        while True:
            try:
                left_s = max(_RETRY_S, deadline - time.monotonic())
                start, end = self._asker.get_watermark_offsets(where, timeout=left_s)
                break
            except (KafkaException, RuntimeError) as error:
                # A partition that is new or changes its leader cannot answer for a moment.
                if time.monotonic() > deadline or self._closed.wait(_RETRY_S):
                    raise LogUnavailable(
                        f"the bounds of partition {partition} are not known: {_text(error)}"
                    ) from None
        return Bounds(start, max(end, acked_end))

    def high_watermarks(self, timeout_s: float = _REQUEST_TIMEOUT_S) -> list[int]:
        """The high watermark of every partition, asked for all at once; see `bounds`.

        Raises:
            LogUnavailable: a partition had no leader that answered within `timeout_s`.
        """
        with self._lock:
            acked_ends = list(self._acked_ends)
        ends = self._offsets(OffsetSpec.latest(), timeout_s)
        return [max(acked, end) for acked, end in zip(acked_ends, ends, strict=True)]

    def starts(self, timeout_s: float = _REQUEST_TIMEOUT_S) -> list[int]:
        """The first offset that is left of every partition; as `high_watermarks`."""
        return self._offsets(OffsetSpec.earliest(), timeout_s)

    def retention(self) -> tuple[int | None, int | None]:
        """How long records are kept, ms, and how many bytes of each partition; None without a limit.

        Raises:
            LogUnavailable: no broker says so.
        """
        resource = ConfigResource(ConfigResource.Type.TOPIC, self.topic)
        try:
            asked = self._admin.describe_configs([resource], request_timeout=_REQUEST_TIMEOUT_S)
            entries = asked[resource].result(2 * _REQUEST_TIMEOUT_S)
            found = [int(entries[name].value) for name in ("retention.ms", "retention.bytes")]
        except (KafkaException, RuntimeError, TimeoutError) as error:
            raise LogUnavailable(f"the retention of the log is not known: {_text(error)}") from None
        kept_ms, kept_bytes = (None if limit < 0 else limit for limit in found)
        return kept_ms, kept_bytes

    def _offsets(self, spec: OffsetSpec, timeout_s: float) -> list[int]:
        """Of every partition, asked for all at once."""
        if self._closing:
            raise LogUnavailable("the log is closed")
        wanted = {TopicPartition(self.topic, p): spec for p in range(self._partitions)}
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                # A broker that has died keeps a request until its time is over, while another one leads already.
                attempt_s = min(_ATTEMPT_S, max(_RETRY_S, deadline - time.monotonic()))
                asked = self._admin.list_offsets(wanted, request_timeout=attempt_s)
                offsets = {where.partition: found.result(2 * attempt_s).offset for where, found in asked.items()}
                silent = [partition for partition, offset in offsets.items() if offset < 0]
                if silent:
                    # Where a leader did not answer in time librdkafka says OFFSET_INVALID, and no error.
                    raise TimeoutError(f"the leader of partition {silent[0]} did not answer")
                return [offsets[p] for p in range(self._partitions)]
            except (KafkaException, RuntimeError, TimeoutError) as error:
                # A partition that is new or changes its leader cannot answer for a moment.
                if time.monotonic() > deadline or self._closed.wait(_RETRY_S):
                    raise LogUnavailable(f"the bounds of the log are not known: {_text(error)}") from None
                # librdkafka goes on to ask with the epoch of the leader that it knew, unless it is told to look.
                with contextlib.suppress(KafkaException):
                    self._admin.list_topics(self.topic, timeout=_ATTEMPT_S)

    def close(self) -> None:
        with self._lock:
            already, self._closing = self._closing, True
        if already:
            self._poller.join()
            return
        # Every record is delivered or given up within the delivery timeout.
        if self._producer is not None:
            self._producer.flush(self._delivery_timeout_s + 1.0)
        self._closed.set()
        self._poller.join()
        self._asker.close()

    # Delivery reports.

    def _poll(self) -> None:
        while not self._closed.is_set():
            self._producer.poll(_POLL_S)
            if self._retired:
                retired = self._retired.popleft()
                retired.purge()
                retired.flush(_POLL_S)

    def _renew_producer(self) -> None:
        """After a fatal error librdkafka's producer takes nothing more; what it still holds is given up."""
        self._retired.append(self._producer)
        self._producer = Producer(self._producer_config())
        self._failed_for_good = False

    def _delivered(self, pending: _Pending, index: int, error: KafkaError | None, message: Any) -> None:
        if error is None:
            pending.offsets[index] = message.offset()
            with self._lock:
                ends = self._acked_ends
                ends[message.partition()] = max(ends[message.partition()], message.offset() + 1)
            self._settle(pending, 1, None)
        else:
            self._settle(pending, 1, error.str())

    def _settle(self, pending: _Pending, count: int, reason: str | None) -> None:
        """Note the outcome of `count` records of an append; the last one resolves its future."""
        with self._lock:
            pending.left -= count
            pending.reason = pending.reason or reason
            done = pending.left == 0
            self._queued_records -= count
            if done:
                self._queued_bytes -= pending.size_bytes
        if not done:
            return
        if pending.reason is None:
            pending.future.set_result(pending.offsets)
        else:
            FAILED_APPENDS.inc()
            pending.future.set_exception(LogUnavailable(f"Kafka did not take the records: {pending.reason}"))


def _text(error: Exception) -> str:
    """What librdkafka says, without the wrapping."""
    cause = error.args[0] if error.args else error
    return cause.str() if isinstance(cause, KafkaError) else str(error)
