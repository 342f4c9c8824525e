"""Making the topics of a cluster with the settings that its guarantees want."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AclOperation, AdminClient, NewTopic

from common.control.kafka import TOPIC_CONFIG as CONTROL_CONFIG
from common.errors import StartupError
from common.log.kafka_user import KafkaUser

REQUEST_S = 30.0

# What libraries say goes where KafkaLog sends it.
_rdkafka_log = logging.getLogger("tabor.librdkafka")


def create_topics(
    bootstrap: str,
    prefix: str,
    partitions: int,
    *,
    factor: int | None = None,
    retention_ms: int | None = None,
    retention_bytes: int | None = None,
    options: Mapping[str, str] | None = None,
) -> list[str]:
    """Make `<prefix>.samples` and `<prefix>.control`; returns one line on each.

    factor: brokers that each record is on; None takes three, or all brokers if there are fewer. A record is
    acknowledged by all of them but one, so that one may be away.
    retention_bytes: of the whole log.
    Raises:
        StartupError: no broker answers, or it refuses; a topic that exists already is left as it is.
    """
    user = KafkaUser(bootstrap, options or {})
    config = {**(options or {}), "bootstrap.servers": bootstrap, "error_cb": user.on_error, "logger": _rdkafka_log}
    try:
        admin: Any = AdminClient(config)
    except KafkaException as error:
        raise StartupError(f"Kafka options are wrong: {error.args[0].str()}") from None
    n_brokers = len(user.metadata(admin, REQUEST_S).brokers)
    factor = factor or min(3, n_brokers)
    if factor > n_brokers:
        raise StartupError(f"{factor} replicas of each topic need as many brokers; there are {n_brokers}")
    in_sync = {"min.insync.replicas": str(max(1, factor - 1))}
    samples = {
        **in_sync,
        "cleanup.policy": "delete",
        "retention.ms": str(-1 if retention_ms is None else retention_ms),
        # Kafka limits each partition by itself.
        "retention.bytes": str(-1 if retention_bytes is None else max(1, retention_bytes // partitions)),
        "unclean.leader.election.enable": "false",
    }
    wanted = [
        NewTopic(f"{prefix}.samples", num_partitions=partitions, replication_factor=factor, config=samples),
        NewTopic(
            f"{prefix}.control",
            num_partitions=1,
            replication_factor=factor,
            config={**CONTROL_CONFIG, **in_sync, "unclean.leader.election.enable": "false"},
        ),
    ]
    lines = []
    for name, future in admin.create_topics(wanted, request_timeout=REQUEST_S).items():
        try:
            future.result(REQUEST_S)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise user.lacks(name, [AclOperation.CREATE]) from None
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise StartupError(f"cannot create the topic {name!r}: {error.args[0].str()}") from None
            lines.append(f"{name} exists already and is left as it is")
        else:
            lines.append(
                f"{name} made, on {factor} of {n_brokers} brokers, {in_sync['min.insync.replicas']} in sync"
            )
    return sorted(lines, reverse=True)
