"""What the records of a partition say, for people and, as JSON lines, for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from common.attachments import NO_REF, Kind
from common.errors import CorruptError, StartupError
from common.labels import parse_canonical
from common.log.base import Log, LogRecord
from common.log.url import open_log
from common.record import RecordBatch, decode_record
from common.store import STALE_NAN_BITS
from common.tombstones import Tombstone
from tabor.values import format_time

_SHOWN_SAMPLES = 5
_SHOWN_BYTES = 32
_POLL_S = 5.0
_POLL_BYTES = 1 << 20


def run_inspect(*, data_dir: Path, log: str, partition: int, from_offset: int, limit: int, as_json: bool) -> None:
    """`tabor log inspect`: print records of a log, which may be in use.

    Raises:
        StartupError: the log or the partition does not exist.
    """
    opened = open_log(log, data_dir=data_dir, partitions=None, create=False, read_only=True)
    try:
        if partition >= opened.partitions:
            raise StartupError(
                f"there is no partition {partition}; the log has {opened.partitions}, counted from 0"
            )
        for line in inspect(opened, partition, from_offset, limit, as_json):
            print(line)
    finally:
        opened.close()


def inspect(log: Log, partition: int, from_offset: int, limit: int | None, as_json: bool) -> Iterator[str]:
    """Yield the lines that describe records, from an offset up to the high watermark at the call.

    limit: number of records at most; None for all. With `as_json` a record is one line: all its fields, or
    `error` and `prefix_hex` if it is corrupt; values are numbers, those that are not finite are strings ('+Inf',
    '-Inf', 'NaN:0x' and the bits).

    Raises:
        LogUnavailable: the log cannot be read.
    """
    start, end = log.bounds(partition)
    if not as_json and from_offset < start:
        yield f"the log of partition {partition} starts at offset {start}"
    left = end - start if limit is None else limit
    position = max(from_offset, start)
    reader = log.reader({partition: position})
    try:
        while left > 0 and position < end:
            records = reader.poll(_POLL_S, _POLL_BYTES)
            if not records:
                # What lies below the high watermark may have been removed in the meantime.
                if log.bounds(partition).start >= end:
                    return
                continue
            for record in records[:left]:
                if record.offset >= end:
                    return
                yield from _as_json(record) if as_json else _as_text(record)
            left -= len(records)
            position = records[-1].offset + 1
    finally:
        reader.close()


def _as_text(record: LogRecord) -> Iterator[str]:
    head = f"partition {record.partition} offset {record.offset}: {len(record.value)} bytes"
    try:
        batch = decode_record(record.value, partition=record.partition, offset=record.offset)
    except CorruptError as error:
        yield f"{head}, CORRUPT: {error}"
        yield f"  begins with {record.value[:_SHOWN_BYTES].hex(' ')}"
        return
    yield (
        f"{head}, producer {batch.producer_id:016x}, created {format_time(batch.created_ms)},"
        f" {len(batch.declared_refs)} declarations, {len(batch.refs)} samples"
        + (f", {len(batch.attached)} attachments" if len(batch.attached) else "")
    )
    for declared in _declarations(batch):
        labels = ", ".join(
            f"{name}={json.dumps(text, ensure_ascii=False)}" for name, text in declared["labels"].items()
        )
        yield f"  declares ref {declared['ref']} id {declared['id']} {{{labels}}}"
    if len(batch.refs):
        first, last = int(batch.timestamps.min()), int(batch.timestamps.max())
        yield f"  samples of {len(np.unique(batch.refs))} series from {format_time(first)} to {format_time(last)}"
    for sample in _samples(batch, _SHOWN_SAMPLES):
        yield f"    ref {sample['ref']} at {format_time(sample['timestamp_ms'])}: {sample['value']}"
    if len(batch.refs) > _SHOWN_SAMPLES:
        yield f"    and {len(batch.refs) - _SHOWN_SAMPLES} more"
    attached = list(_attachments(batch))
    for row in attached[:_SHOWN_SAMPLES]:
        series = "" if row["ref"] is None else f" of ref {row['ref']} at {format_time(row['timestamp_ms'])}"
        what = row.get("deletes", f"{len(row['bytes_hex']) // 2} bytes")
        yield f"  {row['kind']}{series}: {what}"
    if len(attached) > _SHOWN_SAMPLES:
        yield f"    and {len(attached) - _SHOWN_SAMPLES} more"


def _as_json(record: LogRecord) -> Iterator[str]:
    said: dict[str, Any] = {
        "partition": record.partition,
        "offset": record.offset,
        "size_bytes": len(record.value),
    }
    try:
        batch = decode_record(record.value, partition=record.partition, offset=record.offset)
    except CorruptError as error:
        said |= {"error": str(error), "prefix_hex": record.value[:_SHOWN_BYTES].hex()}
    else:
        said |= {
            # As text, because most JSON readers take numbers for floats.
            "producer_id": f"{batch.producer_id:016x}",
            "created_ms": batch.created_ms,
            "declarations": list(_declarations(batch)),
            "samples": list(_samples(batch, len(batch.refs))),
        }
        if len(batch.attached):
            said["attachments"] = list(_attachments(batch))
    yield json.dumps(said, ensure_ascii=False, allow_nan=False)


def _declarations(batch: RecordBatch) -> Iterator[dict[str, Any]]:
    labels = batch.label_bytes.tobytes()
    ends = batch.label_offsets.tolist()
    for i, ref in enumerate(batch.declared_refs.tolist()):
        yield {
            "ref": ref,
            "id": batch.declared_ids[i].tobytes().hex(),
            "labels": parse_canonical(labels[ends[i] : ends[i + 1]]),
        }


def _attachments(batch: RecordBatch) -> Iterator[dict[str, Any]]:
    attached = batch.attached
    columns = (attached.kinds.tolist(), attached.refs.tolist(), attached.timestamps.tolist())
    for i, (kind, ref, time_ms) in enumerate(zip(*columns, strict=True)):
        row: dict[str, Any] = {
            "kind": Kind(kind).name.lower(),
            "ref": None if ref == NO_REF else ref,
            "timestamp_ms": time_ms,
            "bytes_hex": attached.row(i).hex(),
        }
        if kind == Kind.TOMBSTONE:
            row["deletes"] = _deletes(attached.row(i))
        yield row


def _deletes(row: bytes) -> str:
    try:
        tombstone = Tombstone.decode(row)
    except ValueError as error:
        return f"nothing: {error}"
    selector = ", ".join(map(str, tombstone.matchers))
    return f"{{{selector}}} from {format_time(tombstone.min_time_ms)} to {format_time(tombstone.max_time_ms)}"


def _samples(batch: RecordBatch, count: int) -> Iterator[dict[str, Any]]:
    columns = (batch.refs, batch.timestamps, batch.values, batch.values.view(np.uint64))
    for ref, timestamp, value, bits in zip(*(column[:count].tolist() for column in columns), strict=True):
        sample = {"ref": ref, "timestamp_ms": timestamp, "value": _value(value, bits)}
        if bits == STALE_NAN_BITS:
            sample["stale"] = True
        yield sample


def _value(value: float, bits: int) -> float | str:
    if np.isfinite(value):
        return value
    if np.isnan(value):
        return f"NaN:{bits:#018x}"
    return "+Inf" if value > 0 else "-Inf"
