"""What is backed up: a partition as it is at one moment, from this process or from a node over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from common.calling import Caller
from common.errors import RetryableError
from common.wire.frames import WireError
from storage_node.copies import Copies, split_pairs
from storage_node.copy_client import CopyRefused, CopyStream

RESUMES = 20
_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Frozen:
    """A partition at one offset. digest: of all its samples. pairs: its keys, ascending, and their values."""

    partition: int
    format: int
    log: str
    retention_ms: int | None
    next_offset: int
    digest: str
    node: str
    pairs: Iterator[tuple[bytes, bytes]]


def of_this_process(copies: Copies, node: str, partition: int) -> Frozen:
    """Raises NotHeld, RetryableError, DiskError."""
    name = copies.begin(partition)
    return _frozen(copies.header(name), node, copies.pairs(name))


def of_node(
    caller: Caller,
    node: str,
    address: str,
    partition: int,
    *,
    pause: Callable[[float], object] = time.sleep,
) -> Frozen:
    """Over the copy API; a stream that is cut off goes on behind its last key. Raises RetryableError."""
    stream = CopyStream(caller, node, address, partition)
    header = stream.open(b"")

    def pairs() -> Iterator[tuple[bytes, bytes]]:
        last_key, resumes = b"", 0
        try:
            while True:
                try:
                    if resumes:
                        stream.open(last_key)
                    for payload in stream.payloads():
                        for key, value in split_pairs(payload):
                            if key <= last_key:
                                raise CopyRefused(f"keys of partition {partition} of {node} are out of order")
                            last_key = key
                            yield key, value
                    return
                except WireError as error:
                    resumes += 1
                    if resumes > RESUMES:
                        raise CopyRefused(f"partition {partition} of {node}: {error}") from None
                    pause(_PAUSE_S)
        finally:
            stream.close()

    return _frozen(header, node, pairs())


def _frozen(header: dict[str, object], node: str, pairs: Iterator[tuple[bytes, bytes]]) -> Frozen:
    match header:
        case {
            "partition": int(partition),
            "format": int(form),
            "log": str(log),
            "retention_ms": int() | None as retention_ms,
            "next_offset": int(next_offset),
            "digest": str(digest),
        }:
            return Frozen(partition, form, log, retention_ms, next_offset, digest, node, pairs)
    raise RetryableError(f"node {node} is of a release that cannot be backed up: its copies have no digest")
