"""Restoring: the objects of a manifest become a partition's keys again."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from common.errors import RetryableError
from common.wire.frames import WireError
from storage_node.backup.errors import BackupCorrupt
from storage_node.backup.manifest import Manifest, Stored, object_name
from storage_node.backup.pieces import unpack
from storage_node.backup.target import Target
from storage_node.checkpoint import saved_digest_of, saved_offset_of
from storage_node.copies import CopyWriter
from storage_node.disk import Disk
from storage_node.views import FORMAT_VERSION

AT_ONCE = 4
"""Objects that are fetched at the same time, of some MiB each."""


def contents(target: Target, manifest: Manifest) -> Iterator[bytes]:
    """Contents of a partition's objects, in order, checked. Raises BackupCorrupt, TargetError."""

    under_way: deque[Future[bytes]] = deque()
    threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="restore")
    try:
        for one in manifest.objects:
            under_way.append(threads.submit(fetched, target, one))
            if len(under_way) > AT_ONCE:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        # Not waiting: the target may not answer, and nobody needs what it says now.
        threads.shutdown(wait=False, cancel_futures=True)


def fetched(target: Target, stored: Stored) -> bytes:
    """Content of an object. Raises BackupCorrupt, TargetError."""
    data = target.get(object_name(stored.name))
    if data is None:
        raise BackupCorrupt(f"object {stored.name} is missing in {target.where}")
    return unpack(stored.name, stored.size_bytes, data)


def restore_partition(
    target: Target,
    manifest: Manifest,
    disk: Disk,
    *,
    stop: threading.Event | None = None,
    progress: Callable[[int], object] = lambda n_bytes: None,
) -> None:
    """Write a partition to the disk, in place of what there is of it; its meta comes last.

    progress: is given the bytes of each object. Nobody else may have the partition open.
    Raises:
        BackupCorrupt, TargetError, DiskError. RetryableError: `stop` was set.
    """
    if manifest.format != FORMAT_VERSION:
        raise BackupCorrupt(
            f"the backup has format {manifest.format}; this release reads {FORMAT_VERSION}",
            partition=manifest.partition,
        )
    writer = CopyWriter(disk, manifest.partition)
    writer.begin()
    try:
        for content in contents(target, manifest):
            if stop is not None and stop.is_set():
                raise RetryableError("the restore was stopped; it goes on when it is begun again")
            writer.add(memoryview(content))
            progress(len(content))
        writer.finish(is_empty=manifest.next_offset == 0)
    except WireError as error:
        # A key of another partition, or out of order.
        raise BackupCorrupt(str(error), partition=manifest.partition) from None
    check_restored(disk, manifest)


def is_restored(disk: Disk, manifest: Manifest) -> bool:
    """Whether the disk has the partition as the manifest says."""
    frozen = disk.freeze()
    return (
        saved_offset_of(frozen, manifest.partition) == manifest.next_offset
        and saved_digest_of(frozen, manifest.partition) == manifest.digest
    )


def check_restored(disk: Disk, manifest: Manifest) -> None:
    """Raises BackupCorrupt if the partition is not as the manifest says."""
    if not is_restored(disk, manifest):
        raise BackupCorrupt(
            "what was restored has another digest or offset than its manifest says", partition=manifest.partition
        )
