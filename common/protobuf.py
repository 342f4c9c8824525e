"""Protobuf messages one field at a time, for what is too rare to be worth a kernel."""

from __future__ import annotations

from collections.abc import Iterator

from common.labels import uvarint


class Malformed(ValueError):
    """The bytes are not a message."""


def fields(message: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Fields of a message: (number, wire type, content).

    Raises:
        Malformed: it is truncated, or has a wire type that is not in use.
    """
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        wire_type = tag & 7
        if wire_type == 0:
            number, at = _varint(message, at)
            yield tag >> 3, 0, number
            continue
        if wire_type == 2:
            size, at = _varint(message, at)
        elif wire_type in (1, 5):
            size = 8 if wire_type == 1 else 4
        else:
            raise Malformed
        if not tag >> 3 or size > len(message) - at:
            raise Malformed
        yield tag >> 3, wire_type, message[at : at + size]
        at += size


def signed(number: int) -> int:
    """An int64 from the number of a varint field."""
    return number - (1 << 64) if number >= 1 << 63 else number


def delimited(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return uvarint(number << 3 | 2) + uvarint(len(content)) + content


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 70:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (1 << 64) - 1, at
        shift += 7
    raise Malformed
