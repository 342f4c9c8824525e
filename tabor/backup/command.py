"""`tabor backup`: write, list, verify, prune."""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import AbstractContextManager
from pathlib import Path

from common.calling import Caller
from common.errors import CorruptError, RetryableError
from storage_node.backup.choosing import Backup, all_backups, choose
from storage_node.backup.errors import BackupCorrupt
from storage_node.backup.manifest import run_at, runs_of, time_of
from storage_node.backup.pruning import prune
from storage_node.backup.target import open_target
from storage_node.backup.verifying import missing_objects, verify_partition
from storage_node.backup.writing import Progress, Writer
from storage_node.copy_client import CopyForbidden
from tabor import kernels
from tabor.backup.sources import Source, of_cluster, of_folder, of_server
from tabor.progress import Bar, say
from tabor.stopping import stoppable
from tabor.values import format_size

_ATTEMPTS = 3
_PAUSE_S = 2.0


@stoppable("what has been sent is found again by the next backup")
def run_backup(
    where: str, *, url: str, log: str | None, data_dir: Path | None, caller: Caller, rate: int | None
) -> None:
    """Write a backup and say what it took. Raises TaborError, Stopped."""
    target = open_target(where, create=True)
    opened: AbstractContextManager[Source]
    if data_dir is not None:
        kernels.ensure()
        opened = of_folder(data_dir)
    else:
        opened = of_server(url, caller) if log is None else of_cluster(log, caller)
    run = _new_run(runs_of(target))
    begun_s = time.monotonic()
    with opened as source, Bar("backing up", total=source.partitions) as bar:

        def show(done: Progress) -> None:
            rate_now = done.read_bytes / max(time.monotonic() - begun_s, 1e-3)
            note = f"partitions, {format_size(done.read_bytes)} read at {format_size(rate_now)}/s"
            bar.update(done.partitions, note=f"{note}, {format_size(done.sent_bytes)} sent")

        with Writer(target, run, source.partitions, rate_bytes_per_s=rate, progress=show) as writer:
            for partition in range(source.partitions):
                _write(writer, source, partition)
        done = writer.done
    seconds = max(time.monotonic() - begun_s, 1e-3)
    say(
        f"backup {run} of {source.partitions} partitions is in {where}: {format_size(done.read_bytes)} read, "
        f"{format_size(done.sent_bytes)} sent (compressed), {format_size(done.kept_bytes)} were there already; "
        f"{seconds:.1f} s, {format_size(done.read_bytes / seconds)}/s"
    )


def _write(writer: Writer, source: Source, partition: int) -> None:
    """What has been sent of a partition is found again when it is read once more."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            writer.write(source.freeze(partition))
        except CopyForbidden:
            raise
        except RetryableError as error:
            if attempt == _ATTEMPTS:
                raise
            say(f"partition {partition}: {error}; trying again")
            time.sleep(_PAUSE_S)
        else:
            return


def _new_run(runs: dict[str, set[int]]) -> str:
    """A name that is later than all others; two backups within a second would share one."""
    newest_s = time_of(max(runs)) + 1 if runs else 0.0
    return run_at(max(time.time(), newest_s))


def run_list(where: str) -> None:
    """One line a backup, oldest first, on standard output."""
    backups = all_backups(open_target(where, create=False))
    print(f"{'backup':<18}{'partitions':>12}{'keys, values':>14}{'objects':>12}  of")
    for one in backups:
        manifests = one.manifests.values()
        size = format_size(sum(manifest.size_bytes for manifest in manifests))
        stored = format_size(sum(manifest.stored_bytes for manifest in manifests))
        whole = f"{len(one.manifests)}" if one.is_whole else f"{len(one.manifests)} of {one.partitions}"
        log = next(iter(manifests)).log if manifests else ""
        print(f"{one.run:<18}{whole:>12}{size:>14}{stored:>12}  {log}")
    if not backups:
        say(f"there are no backups in {where}")


@stoppable("nothing is known of the backup")
def run_verify(where: str, run: str | None, *, quick: bool) -> bool:
    """Check a backup, the newest whole one if none is named; prints what is wrong and says whether nothing is."""
    target = open_target(where, create=False)
    backup = choose(target, run)
    wrong = list(missing_objects(target, backup))
    if not wrong and not quick:
        kernels.ensure()
        wrong = list(_wrong(where, backup))
    for line in wrong:
        print(line)
    how = "all objects are there" if quick else "all objects, digests and chunks are right"
    print(f"backup {backup.run}: " + (f"{len(wrong)} faults" if wrong else how))
    return not wrong


def _wrong(where: str, backup: Backup) -> list[str]:
    target = open_target(where, create=False)
    lines = []
    total = sum(manifest.size_bytes for manifest in backup.manifests.values())
    done = 0
    scratch = Path(tempfile.mkdtemp(prefix="tabor-verify-"))
    try:
        with Bar("verifying", total=total) as bar:

            def show(n_bytes: int) -> None:
                nonlocal done
                done += n_bytes
                bar.update(done, note=format_size(done))

            for partition, manifest in backup.manifests.items():
                try:
                    verify_partition(target, manifest, scratch, show)
                except (BackupCorrupt, CorruptError) as error:
                    lines.append(f"partition {partition}: {error}")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return lines


def run_prune(where: str, keep: int) -> None:
    """Forget all but the newest whole backups, and say what that freed."""
    pruned = prune(open_target(where, create=False), keep)
    freed = format_size(pruned.size_bytes)
    say(f"{len(pruned.forgotten)} backups forgotten, {pruned.objects} objects deleted, {freed}")
    if not pruned.freed:
        say("a backup is being written: objects that nothing needs any more go with the next prune")
