"""Reading on from a backup: records of a log on top of restored views, up to a time."""

from __future__ import annotations

import time
from collections.abc import Callable

from common.errors import StartupError
from common.log.base import Log, LogRecord
from common.record import decode_records
from storage_node.views import Views

POLL_S = 0.5


def apply_log(
    log: Log,
    views: Views,
    until_ms: int | None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> int:
    """Apply all records up to the log's end as it is now, or up to a time; returns the number of samples.

    until_ms: of each partition the records before the first one that was made later than this (`created_ms`,
      Unix ms, by the clock of the ingestor).
    progress: is given records done and in all.
    Raises:
        StartupError: the log lacks records between the views and its start. LogUnavailable, DiskError.
    """
    ends = {partition: log.bounds(partition).high_watermark for partition in views.shards}
    total = sum(max(0, ends[p] - offset) for p, offset in views.positions().items())
    done = 0
    for partition, shard in views.shards.items():
        position, start = shard.state.next_offset, log.bounds(partition).start
        if start > position:
            raise StartupError(
                f"the log begins at offset {start} of partition {partition}, the backup ends at {position}"
            )
        reader = log.reader({partition: position})
        try:
            while (at := shard.state.next_offset) < ends[partition]:
                records = [record for record in reader.poll(POLL_S) if record.offset < ends[partition]]
                wanted = records if until_ms is None else _before(records, until_ms)
                views.apply(wanted, time.monotonic())
                views.checkpoint_due(time.monotonic())
                done += shard.state.next_offset - at
                progress(done, total)
                if len(wanted) < len(records):
                    break
        finally:
            reader.close()
    return sum(shard.samples for shard in views.shards.values())


def _before(records: list[LogRecord], until_ms: int) -> list[LogRecord]:
    """The records before the first one that is later; what cannot be read has no time and goes with the others."""
    at = 0
    for decoded in decode_records([record.value for record in records]):
        for i in range(len(decoded)):
            if i not in decoded.faults and decoded.created_ms[i] > until_ms:
                return records[: at + i]
        at += len(decoded)
    return records
