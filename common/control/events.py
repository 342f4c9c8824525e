"""Events of the control topic: heartbeats and leaves of storage nodes (`docs/format/control-topic.md`)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any

import orjson

from common.errors import CorruptError

VERSION = 1
MAX_NAME_BYTES = 200
ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):\d{1,5}")


class EventKind(Enum):
    HEARTBEAT = "heartbeat"
    LEAVE = "leave"


@dataclass(frozen=True, slots=True)
class Event:
    """What a storage node says of itself.

    node: its name. instance: random, one for each process, so that two nodes of one name can be told apart.
    address: host:port of its read API. partitions: of the log. format: version of the log's records.
    applied: next offset of each partition; empty when it leaves.
    ready: it has applied all that was in the log when it started.
    at_ms: the node's clock, for people only; what is decided is decided by the time the broker gave the record.
    """

    kind: EventKind
    node: str
    instance: str
    address: str
    partitions: int
    format: int
    applied: tuple[int, ...]
    ready: bool
    at_ms: int


def encode_event(event: Event) -> bytes:
    """An event as JSON; its key in the topic is the node's name."""
    return orjson.dumps(
        {
            "v": VERSION,
            "event": event.kind.value,
            "node": event.node,
            "instance": event.instance,
            "address": event.address,
            "partitions": event.partitions,
            "format": event.format,
            "applied": event.applied,
            "ready": event.ready,
            "at_ms": event.at_ms,
        }
    )


def parse_event(value: bytes, offset: int) -> Event | None:
    """Take an event apart; None if it is of a version or kind that is not known here, and no concern of ours.

    Raises:
        CorruptError: it is none.
    """
    try:
        content = orjson.loads(value)
    except orjson.JSONDecodeError:
        raise CorruptError("the event is not JSON", offset=offset) from None
    if not isinstance(content, dict) or type(content.get("v")) is not int:
        raise CorruptError("the event has no version", offset=offset)
    if content["v"] != VERSION or content.get("event") not in EventKind._value2member_map_:
        return None
    reason = _fault(content)
    if reason is not None:
        raise CorruptError(f"the event's {reason}", offset=offset)
    return Event(
        kind=EventKind(content["event"]),
        node=content["node"],
        instance=content["instance"],
        address=content["address"],
        partitions=content["partitions"],
        format=content["format"],
        applied=tuple(content["applied"]),
        ready=content["ready"],
        at_ms=content["at_ms"],
    )


def _fault(content: dict[str, Any]) -> str | None:
    for key, kind in (
        ("node", str),
        ("instance", str),
        ("address", str),
        ("partitions", int),
        ("format", int),
        ("applied", list),
        ("ready", bool),
        ("at_ms", int),
    ):
        if type(content.get(key)) is not kind:
            return f"{key!r} is missing or of another type"
    if not 0 < len(content["node"].encode()) <= MAX_NAME_BYTES:
        return "'node' is empty or too long"
    if not ADDRESS.fullmatch(content["address"]):
        return "'address' is not host:port"
    if content["partitions"] < 1 or len(content["applied"]) not in (0, content["partitions"]):
        return "'applied' has not one offset a partition"
    if not all(type(offset) is int and offset >= 0 for offset in content["applied"]):
        return "'applied' holds something else than offsets"
    return None
