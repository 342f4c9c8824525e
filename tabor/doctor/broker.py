"""Kafka's brokers, and the topics of a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from common.errors import StartupError
from common.log.base import MAX_RECORD_BYTES
from common.log.kafka_user import KafkaUser
from common.log.url import KafkaUrl
from tabor.doctor.findings import Finding, graded, ok, problem, warning

ASK_S = 5.0
LEAST_RETENTION_MS, GOOD_RETENTION_MS = 3_600_000, 3 * 86_400_000
_OVERHEAD_BYTES = 1024
"""Of a batch of one record around its value."""


def check(where: KafkaUrl) -> Iterator[Finding]:
    """How the brokers are, and whether the topics keep what Tabor promises. Raises StartupError."""
    user = KafkaUser(where.bootstrap, where.options)
    options = {**where.options, "bootstrap.servers": where.bootstrap, "error_cb": user.on_error}
    try:
        admin: Any = AdminClient(options)
    except KafkaException as error:
        raise StartupError(f"Kafka options are wrong: {error.args[0].str()}") from None
    seen = user.metadata(admin, ASK_S)
    n_brokers = len(seen.brokers)
    advice = "with three, one may be away without a write being refused or lost"
    yield graded("brokers", f"{n_brokers} at {where.bootstrap}", advice, bad=n_brokers == 0, poor=n_brokers < 3)
    for name, is_control in ((f"{where.prefix}.samples", False), (f"{where.prefix}.control", True)):
        topic = seen.topics.get(name)
        if topic is None or topic.error is not None:
            command = "tabor cluster create-topics"
            yield problem(name, "there is no such topic", f"make it with `{command}`, or mind its prefix and ACLs")
            continue
        yield from partitions(name, topic.partitions, n_brokers)
        settings = _settings(admin, name)
        if settings is None:
            yield warning(name, "its settings cannot be read", "grant DESCRIBE_CONFIGS to whoever runs the doctor")
        else:
            copies = min((len(p.replicas) for p in topic.partitions.values()), default=0)
            yield from durability(name, settings, copies)
            yield from (control(name, settings) if is_control else samples(name, settings))


def partitions(name: str, found: Mapping[int, Any], n_brokers: int) -> Iterator[Finding]:
    """Whether all partitions have a leader and their replicas in sync."""
    without = [p for p, one in found.items() if one.leader < 0]
    behind = [p for p, one in found.items() if len(one.isrs) < len(one.replicas)]
    if without:
        text = f"{len(without)} of {len(found)} partitions have no leader"
        yield problem(name, text, "bring the brokers back that have them")
    elif behind:
        text = f"{len(behind)} of {len(found)} partitions lack an in-sync replica"
        yield warning(name, text, "see which broker is down or slow; one more may stop writes")
    else:
        yield ok(name, f"{len(found)} partitions, all in sync")


def durability(name: str, settings: Mapping[str, str], copies: int) -> Iterator[Finding]:
    """Whether what is acknowledged survives a broker."""
    in_sync = int(settings.get("min.insync.replicas", "1"))
    about = f"{name} replicas"
    text = f"{copies} of each record, {in_sync} before it is acknowledged (min.insync.replicas)"
    if in_sync > copies:
        yield problem(about, text, f"nothing can be written: set min.insync.replicas to {max(1, copies - 1)}")
    elif copies > 1 and in_sync == copies:
        yield warning(about, text, f"one broker away stops writes: set min.insync.replicas to {copies - 1}")
    elif in_sync < 2:
        advice = "an acknowledged record may be on one disk only: three replicas, and min.insync.replicas 2"
        yield warning(about, text, advice)
    else:
        yield ok(about, text)
    if settings.get("unclean.leader.election.enable") == "true":
        advice = "set unclean.leader.election.enable to false: a broker that lacks records may else become leader"
        yield problem(name, "acknowledged records may be lost", advice)
    limit = int(settings.get("max.message.bytes", "1048588"))
    least = MAX_RECORD_BYTES + _OVERHEAD_BYTES
    advice = f"set max.message.bytes to {least} or more: records have up to {MAX_RECORD_BYTES} bytes"
    yield graded(f"{name} message size", f"up to {limit:,} bytes", advice, bad=limit < least)


def samples(name: str, settings: Mapping[str, str]) -> Iterator[Finding]:
    """Whether the log is kept long enough to rebuild from."""
    policy = settings.get("cleanup.policy", "delete")
    advice = "set cleanup.policy to delete: records have no keys that could be compacted"
    yield graded(f"{name} cleanup", policy, advice, bad="compact" in policy)
    kept_ms, size = int(settings.get("retention.ms", "-1")), int(settings.get("retention.bytes", "-1"))
    about = f"{name} retention"
    if kept_ms < 0 and size < 0:
        yield ok(about, "everything is kept")
        return
    text = "any time" if kept_ms < 0 else f"{kept_ms / 3_600_000:,.1f} h"
    text += "" if size < 0 else f", at most {size / 2**30:,.1f} GiB a partition"
    advice = (
        "it has to be longer than a node may be away and a rebuild takes: what a node has not read by then is "
        "lost to it (docs/operations.md, Sizing the log)"
    )
    short = 0 <= kept_ms < LEAST_RETENTION_MS
    yield graded(about, text, advice, bad=short, poor=0 <= kept_ms < GOOD_RETENTION_MS)


def control(name: str, settings: Mapping[str, str]) -> Iterator[Finding]:
    """Whether the state of the cluster is kept for ever."""
    policy = settings.get("cleanup.policy", "delete")
    advice = "set cleanup.policy to compact: seats and layout of the cluster would else be deleted with time"
    yield graded(f"{name} cleanup", policy, advice, bad=policy != "compact")
    stamps = settings.get("message.timestamp.type", "CreateTime")
    advice = "set message.timestamp.type to LogAppendTime: nodes' clocks would else decide who is alive"
    yield graded(f"{name} timestamps", stamps, advice, bad=stamps != "LogAppendTime")


def _settings(admin: Any, topic: str) -> dict[str, str] | None:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    future: Future[Mapping[str, Any]] = admin.describe_configs([resource], request_timeout=ASK_S)[resource]
    try:
        return {name: entry.value for name, entry in future.result(2 * ASK_S).items()}
    except KafkaException:
        return None
