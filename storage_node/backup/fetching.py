"""A partition that no other node has and that the log no longer has from its start: from the newest backup."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from common.events import EventLog
from storage_node.backup.choosing import newest_of
from storage_node.backup.errors import BackupCorrupt
from storage_node.backup.manifest import Manifest
from storage_node.backup.restoring import restore_partition
from storage_node.backup.target import Target
from storage_node.views import Views

_log = EventLog("backup")


def fetch_partition(
    target: Target,
    views: Views,
    partition: int,
    log_start: int,
    stop: threading.Event,
    *,
    progress: Callable[[Manifest, int], object] = lambda manifest, n_bytes: None,
) -> bool:
    """Put a partition's newest backup onto the disk; False if there is none that can be used, which is logged.

    progress: is given the bytes of each object. The log goes on from there; what lies between the backup and the
    log's start is lost and logged.
    Raises:
        TargetError, DiskError: it may succeed later.
    """
    try:
        manifest = newest_of(target, partition)
        if manifest is None:
            _log.error("no_backup", partition=partition, target=target.where)
            return False
        config = views.config
        if (manifest.log, manifest.retention_ms) != (config.log_identity, config.retention_ms):
            why = f"it is of log {manifest.log!r} with retention {manifest.retention_ms}"
            _log.error("backup_not_usable", partition=partition, backup=manifest.run, reason=why)
            return False
        if manifest.next_offset < log_start:
            gap = {"next_offset": manifest.next_offset, "start": log_start}
            _log.error("backup_ends_before_log", partition=partition, backup=manifest.run, **gap)
        restore_partition(target, manifest, views.disk, stop=stop, progress=partial(progress, manifest))
    except BackupCorrupt as error:
        _log.error("backup_not_usable", partition=partition, reason=str(error))
        return False
    about = {"backup": manifest.run, "next_offset": manifest.next_offset, "bytes": manifest.size_bytes}
    _log.info("partition_from_backup", partition=partition, **about)
    return True
