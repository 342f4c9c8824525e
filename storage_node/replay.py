"""Throwing the views away and building them again from the log."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from common.errors import StartupError
from common.log.base import Log
from storage_node.checkpoint import commit_merge
from storage_node.config import NodeConfig
from storage_node.errors import SegmentGone
from storage_node.merging import merge, merge_attached, plan_merge
from storage_node.views import FolderLock, Views, exchange, kept, views_folder

POLL_S = 0.5
Progress = Callable[[int, int, int], None]
"""Called with records applied, records in all, and samples applied."""


class Replayed(NamedTuple):
    """Digest of a partition before and after; before is None where there were no readable views."""

    partition: int
    digest_before: str | None
    digest_after: str


def replay(
    log: Log, config: NodeConfig, *, force: bool = False, progress: Progress = lambda done, total, samples: None
) -> list[Replayed]:
    """Build the views anew from the log, up to its end at the time of the call, then put them in place.

    Of a node that shares the log with others the partitions that it has are rebuilt, else all of the log.
    The old views are first brought to the same offsets, so that equal digests mean equal contents. The new ones
    are built in a folder beside and exchanged at the end: a kill at any moment leaves the old ones or the new.
    A retention that the config does not give is the one that the old views were kept with.

    Raises:
        StartupError: a node is running on the folder; or the log no longer begins at its beginning, so that
            samples would be lost, and `force` is not set.
        LogUnavailable: the log cannot be read.
    """
    with FolderLock(config.data_dir):
        folder = views_folder(config.data_dir)
        before = kept(folder)
        partitions = range(log.partitions) if before.partitions is None else before.partitions
        bounds = {partition: log.bounds(partition) for partition in partitions}
        cut = [partition for partition, (start, _) in bounds.items() if start > 0]
        if cut and not force:
            raise StartupError(
                f"the log of partition {cut[0]} begins at offset {bounds[cut[0]].start}, so that a replay would "
                "lose what was there before; use --force to do it all the same"
            )
        if config.retention_ms is None:
            config = replace(config, retention_ms=before.retention_ms)
        ends = {partition: high_watermark for partition, (_, high_watermark) in bounds.items()}
        return _replay(log, ends, folder, config, progress, shared=before.partitions is not None)


def _replay(
    log: Log, ends: dict[int, int], folder: Path, config: NodeConfig, progress: Progress, *, shared: bool
) -> list[Replayed]:
    held = ends.keys() if shared else None
    before = _digests_at(log, ends, folder, config, held) if folder.exists() else {}
    rebuild = config.data_dir / "views.rebuild"
    views = Views(rebuild, log.partitions, config, held=held)
    try:
        _apply(log, ends, views, progress, write=True)
        for shard in views.shards.values():
            while plan := plan_merge(shard.state):
                try:
                    batch, merged = merge(plan, views.segments, views.disk)
                except SegmentGone:  # pragma: no cover - nobody else writes here
                    break
                commit_merge(shard.state, plan.window, plan.old, merged, batch)
            while merge_attached(shard.state, shard.lock):
                pass
        views.save(time.monotonic())
        after = {partition: shard.state.digest() for partition, shard in views.shards.items()}
    finally:
        views.close()
    rebuild.rename(config.data_dir / "views.ready")
    exchange(config.data_dir)
    return [Replayed(partition, before.get(partition), digest) for partition, digest in after.items()]


def _digests_at(
    log: Log, ends: dict[int, int], folder: Path, config: NodeConfig, held: Collection[int] | None
) -> dict[int, str | None]:
    try:
        views = Views(folder, log.partitions, config, held=held)
    except StartupError:
        # Views that cannot be read have no digest; they stay until the new ones take their place.
        return {}
    try:
        _apply(log, ends, views, lambda done, total, samples: None, write=False)
        return {
            partition: shard.state.digest() if shard.state.next_offset <= ends[partition] else None
            for partition, shard in views.shards.items()
        }
    finally:
        views.close()


def _apply(log: Log, ends: dict[int, int], views: Views, progress: Progress, *, write: bool) -> None:
    """Apply all records below `ends`."""
    for partition, shard in views.shards.items():
        start = log.bounds(partition).start
        if start > shard.state.next_offset:
            shard.state.start_at(start)
    positions = views.positions()
    total = sum(max(0, ends[p] - positions[p]) for p in ends)
    if not total:
        return
    reader = log.reader({p: offset for p, offset in positions.items() if offset < ends[p]})
    try:
        while any(shard.state.next_offset < ends[p] for p, shard in views.shards.items()):
            records = [record for record in reader.poll(POLL_S) if record.offset < ends[record.partition]]
            views.apply(records, time.monotonic())
            if write:
                views.checkpoint_due(time.monotonic())
            done = sum(shard.records for shard in views.shards.values())
            progress(min(done, total), total, sum(shard.samples for shard in views.shards.values()))
    finally:
        reader.close()
