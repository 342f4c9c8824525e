"""Records of the control topic: what nodes say of themselves, who has which ordinal, and what all agree on.

The format is `docs/format/control-topic.md`. Of each key the last record counts, whatever came before: the topic
is compacted, so that nothing else is sure to be there for whoever reads it later.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

import orjson

from common.errors import CorruptError

VERSION = 2
MAX_NAME_BYTES = 200
MAX_PARTITIONS = 65_536
MAX_ORDINAL = 65_535
ADDRESS = re.compile(r"(https://)?(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):\d{1,5}")

LAYOUT_KEY = "layout"
NODE_PREFIX = "node/"
_ORDINAL = re.compile(r"ordinal/(0|[1-9]\d{0,4})")


class EventKind(Enum):
    HEARTBEAT = "heartbeat"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Event:
    """What a storage node says of itself.

    node: its name. instance: random, one for each process, so that two nodes of one name can be told apart.
    address: host:port of its read API, https://host:port if that has TLS.
    applied: next offset of each partition that it holds; empty when it stops.
    lagging: of these, partitions that lack some of what was in the log when the node opened them.
    ready: it holds, without such a lack, all that it had to hold when it started.
    at_ms: the node's clock, for people only; what is decided is decided by the time the broker gave the record.
    """

    kind: EventKind
    node: str
    instance: str
    address: str
    applied: dict[int, int]
    lagging: frozenset[int]
    ready: bool
    at_ms: int


@dataclass(frozen=True, slots=True)
class Layout:
    """What all nodes of a log agree on. replicas: on how many nodes each partition is."""

    partitions: int
    format: int
    replicas: int


class Presence(Enum):
    """IN: the node is given partitions. DRAINING: it gives its own away. AWAY: it was silent for too long."""

    IN = "in"
    DRAINING = "draining"
    AWAY = "away"


@dataclass(frozen=True, slots=True)
class Seat:
    """An ordinal and the node that has it, for as long as it belongs to the cluster, running or not."""

    ordinal: int
    node: str
    presence: Presence


Record: TypeAlias = Event | Layout | Seat


def key_of(record: Record) -> str:
    """The record's key in the topic."""
    match record:
        case Event():
            return NODE_PREFIX + record.node
        case Layout():
            return LAYOUT_KEY
        case Seat():
            return seat_key(record.ordinal)


def seat_key(ordinal: int) -> str:
    return f"ordinal/{ordinal}"


def encode_record(record: Record) -> bytes:
    """The record's value, JSON."""
    content: dict[str, Any]
    match record:
        case Event():
            content = {
                "event": record.kind.value,
                "node": record.node,
                "instance": record.instance,
                "address": record.address,
                "held": list(record.applied),
                "applied": list(record.applied.values()),
                "lagging": sorted(record.lagging),
                "ready": record.ready,
                "at_ms": record.at_ms,
            }
        case Layout():
            content = {"partitions": record.partitions, "format": record.format, "replicas": record.replicas}
        case Seat():
            content = {"node": record.node, "presence": record.presence.value}
    return orjson.dumps({"v": VERSION, **content})


def ordinal_of_key(key: str) -> int | None:
    found = _ORDINAL.fullmatch(key)
    return int(found[1]) if found is not None and int(found[1]) <= MAX_ORDINAL else None


def parse_record(key: str, value: bytes, offset: int) -> Record | None:
    """Take a record apart; None if its key, version or event is not known here, and so no concern of ours.

    Raises:
        CorruptError: it is none.
    """
    ordinal = ordinal_of_key(key)
    if key != LAYOUT_KEY and ordinal is None and not key.startswith(NODE_PREFIX):
        return None
    try:
        content = orjson.loads(value)
    except orjson.JSONDecodeError:
        raise CorruptError("the record is not JSON", offset=offset) from None
    if not isinstance(content, dict) or type(content.get("v")) is not int:
        raise CorruptError("the record has no version", offset=offset)
    if content["v"] != VERSION:
        return None
    try:
        if key == LAYOUT_KEY:
            return _layout(content)
        return _event(content, key) if ordinal is None else _seat(content, ordinal)
    except ValueError as error:
        raise CorruptError(f"the record's {error}", offset=offset) from None


def _layout(content: dict[str, Any]) -> Layout:
    _check_types(content, partitions=int, format=int, replicas=int)
    layout = Layout(content["partitions"], content["format"], content["replicas"])
    if not 1 <= layout.partitions <= MAX_PARTITIONS or layout.replicas < 1:
        raise ValueError("'partitions' or 'replicas' is out of range")
    return layout


def _seat(content: dict[str, Any], ordinal: int) -> Seat | None:
    _check_types(content, node=str, presence=str)
    if content["presence"] not in Presence._value2member_map_:
        return None
    return Seat(ordinal, _name(content), Presence(content["presence"]))


def _event(content: dict[str, Any], key: str) -> Event | None:
    if content.get("event") not in EventKind._value2member_map_:
        return None
    _check_types(
        content, node=str, instance=str, address=str, held=list, applied=list, lagging=list, ready=bool, at_ms=int
    )
    if key != NODE_PREFIX + _name(content):
        raise ValueError("'node' is not that of its key")
    if not ADDRESS.fullmatch(content["address"]):
        raise ValueError("'address' is neither host:port nor https://host:port")
    held, applied, lagging = content["held"], content["applied"], content["lagging"]
    if not all(type(number) is int and number >= 0 for number in (*held, *applied, *lagging)):
        raise ValueError("'held', 'applied' or 'lagging' has something else than numbers")
    if len(held) != len(applied) or len(set(held)) < len(held):
        raise ValueError("'applied' has not one offset for each partition held")
    return Event(
        kind=EventKind(content["event"]),
        node=content["node"],
        instance=content["instance"],
        address=content["address"],
        applied=dict(zip(held, applied, strict=True)),
        lagging=frozenset(lagging),
        ready=content["ready"],
        at_ms=content["at_ms"],
    )


def _name(content: dict[str, Any]) -> str:
    name: str = content["node"]
    if not 0 < len(name.encode()) <= MAX_NAME_BYTES:
        raise ValueError("'node' is empty or too long")
    return name


def _check_types(content: dict[str, Any], **types: type) -> None:
    for key, kind in types.items():
        if type(content.get(key)) is not kind:
            raise ValueError(f"{key!r} is missing or of another type")
