"""The cursor of a KafkaLog: one consumer, explicit offsets, no group."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from common.errors import LogUnavailable
from common.log.base import LogRecord
from common.log.kafka_user import concerns_groups

_REQUEST_TIMEOUT_S = 5.0
_CONSUME_RECORDS = 64


class KafkaLogReader:
    """A cursor over some partitions of a topic.

    log_closed: set when the log is closed; polling then raises.
    """

    def __init__(
        self, topic: str, config: dict[str, Any], positions: Mapping[int, int], log_closed: threading.Event
    ) -> None:
        self._topic = topic
        self._positions = dict(positions)
        self._log_closed = log_closed
        self._ready: deque[LogRecord] = deque()
        self._assigned = False
        self._closed = False
        try:
            self._consumer = Consumer(config)
        except KafkaException as error:
            raise LogUnavailable(f"the log cannot be read: {error.args[0].str()}") from None

    def poll(self, timeout_s: float, max_bytes: int = 32 << 20) -> list[LogRecord]:
        if self._log_closed.is_set():
            raise LogUnavailable("the log is closed")
        out: list[LogRecord] = []
        size = 0
        while size < max_bytes:
            if not self._ready:
                # Asked for many, librdkafka waits until it has that many; so it is asked for one first.
                first = not out
                self._fetch(1 if first else _CONSUME_RECORDS, timeout_s if first else 0.0, give_up=first)
                if not self._ready:
                    break
            if out and size + len(self._ready[0].value) > max_bytes:
                break
            out.append(self._ready.popleft())
            size += len(out[-1].value)
        return out

    def _fetch(self, count: int, timeout_s: float, *, give_up: bool) -> None:
        """Take messages from the consumer; errors raise only if `give_up` is set, else they come again."""
        if not self._positions:
            self._log_closed.wait(timeout_s)
            return
        failure: str | None = None
        try:
            if not self._assigned:
                self._assign()
            messages = self._consumer.consume(count, timeout_s)
        except (KafkaException, RuntimeError) as refused:
            raise LogUnavailable(f"the log cannot be read: {refused}") from None
        for message in messages:
            error = message.error()
            if error is None:
                self._ready.append(LogRecord(message.partition(), message.offset(), message.value() or b""))
                self._positions[message.partition()] = message.offset() + 1
            elif not concerns_groups(error):
                # Whatever it was, the consumer is told again where to go on.
                self._assigned = False
                failure = self._explain(message.partition(), error)
        if failure is not None and give_up and not self._ready:
            raise LogUnavailable(failure)

    def _assign(self) -> None:
        self._consumer.assign([TopicPartition(self._topic, p, offset) for p, offset in self._positions.items()])
        self._assigned = True

    def _explain(self, partition: int, error: KafkaError) -> str | None:
        """Why a partition cannot be read; None if it can, from another position."""
        if error.code() != KafkaError._AUTO_OFFSET_RESET:
            return f"the log cannot be read: {error.str()}"
        position = self._positions[partition]
        try:
            start, end = self._consumer.get_watermark_offsets(
                TopicPartition(self._topic, partition), timeout=_REQUEST_TIMEOUT_S
            )
        except KafkaException as failure:
            return f"the log cannot be read: {failure.args[0].str()}"
        if position < start:
            self._positions[partition] = start
            return None
        if position <= end:
            return None
        return (
            f"partition {partition} of {self._topic} ends at {end}, before the position {position}:"
            " the topic was made anew or has lost records"
        )

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._consumer.close()
