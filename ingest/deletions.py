"""Tombstones as records: the same for every partition, for each has a part of the series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from common.attachments import NO_REF, Attachments, Kind
from common.log.base import MAX_RECORD_BYTES, Append
from common.record import NOTHING, encode_record
from common.tombstones import Tombstone
from ingest.errors import BadRequest

MAX_TOMBSTONES = 1000
"""Of one request."""


def tombstone_records(
    tombstones: Sequence[Tombstone], n_partitions: int, producer_id: int, now_ms: int
) -> list[Append]:
    """One record for each partition, with nothing but these tombstones.

    Raises:
        BadRequest: they are too many, or too long for one record.
    """
    if len(tombstones) > MAX_TOMBSTONES:
        raise BadRequest(f"{len(tombstones)} selectors are too many; a request may have {MAX_TOMBSTONES}")
    try:
        rows = Attachments.of([(Kind.TOMBSTONE, NO_REF, 0, tombstone.encode()) for tombstone in tombstones])
    except ValueError as error:
        raise BadRequest(str(error)) from None
    record = encode_record(replace(NOTHING, producer_id=producer_id, created_ms=now_ms, attached=rows))
    if len(record) > MAX_RECORD_BYTES:
        raise BadRequest(f"the selectors take {len(record)} bytes; a request may have {MAX_RECORD_BYTES}")
    return [Append(partition, record) for partition in range(n_partitions)]
