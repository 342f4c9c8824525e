"""A cluster as the command line reads it: the control topic from its start, and the ends of the log."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from dataclasses import dataclass

from common.control.events import Layout, Record, encode_record, key_of
from common.control.kafka import KafkaControlTopic
from common.control.members import Member
from common.errors import LogUnavailable, RetryableError, StartupError
from common.log.kafka import KafkaLog
from common.log.url import parse_kafka_url
from common.membership import Cluster, Membership
from storage_node.assignment import Targets

READ_S = 20.0


@dataclass(frozen=True, slots=True)
class Reading:
    """An open cluster. Raises LogUnavailable from whatever asks Kafka."""

    membership: Membership
    log: KafkaLog

    def cluster(self) -> Cluster:
        return self.membership.cluster()

    def layout(self) -> Layout:
        """Raises StartupError if no node has ever joined."""
        layout = self.cluster().layout
        if layout is None:
            raise StartupError(
                f"{self.membership.topic.name} knows no cluster yet; start a storage node, or make the topics with"
                " `tabor cluster create-topics`"
            )
        return layout

    def live(self) -> dict[str, Member]:
        return self.membership.live(self.cluster())

    def targets(self) -> dict[int, list[str]]:
        """Names of the nodes that each partition belongs on."""
        layout = self.layout()
        targets = Targets(layout, self.cluster().seats)
        return {partition: targets.of(partition) for partition in range(layout.partitions)}

    def send(self, key: str, record: Record | None) -> None:
        """Write a record, or delete what a key has, and wait until that has been read back."""
        value = None if record is None else encode_record(record)
        try:
            offset = self.membership.topic.send(key, value).result(READ_S)
        except FutureTimeout:
            raise LogUnavailable(f"{self.membership.topic.name} takes no records") from None
        if not self.membership.wait_position(offset + 1, READ_S):
            raise RetryableError(f"{self.membership.topic.name} could not be read within {READ_S:g} s")

    def put(self, record: Record) -> None:
        self.send(key_of(record), record)


@contextmanager
def reading(url: str, *, writes_log: bool = False, writes_control: bool = False) -> Iterator[Reading]:
    """Open the cluster whose log is at a Kafka URL.

    writes_log, writes_control: what will be written to; the user of Kafka needs the rights for it.
    Raises:
        StartupError: it cannot be opened, or has no topics.
    """
    where = parse_kafka_url(url)
    log = KafkaLog(
        where.bootstrap,
        where.prefix,
        None,
        options=where.options,
        create=False,
        reads=False,
        writes=writes_log,
    )
    try:
        topic = KafkaControlTopic(where.bootstrap, where.prefix, options=where.options, writes=writes_control)
        membership = Membership(topic)
        membership.start()
        try:
            if not membership.wait_read(READ_S):
                raise StartupError(f"{topic.name} could not be read within {READ_S:g} s; is Kafka well?")
            yield Reading(membership, log)
        finally:
            membership.close()
            topic.close()
    finally:
        log.close()
