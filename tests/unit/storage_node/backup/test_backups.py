"""Backups of a node's partitions: what they hold, what comes back, what verify sees."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import RetryableError, StartupError
from storage_node.backup import pieces as pieces_module
from storage_node.backup.choosing import all_backups, choose, newest_of
from storage_node.backup.errors import BackupCorrupt, TargetError
from storage_node.backup.manifest import Manifest, Stored, encode, manifest_name, object_name, read_manifest
from storage_node.backup.pieces import pack
from storage_node.backup.pruning import prune
from storage_node.backup.restoring import fetched, restore_partition
from storage_node.backup.source import of_this_process
from storage_node.backup.target import FolderTarget
from storage_node.backup.verifying import missing_objects, verify_partition
from storage_node.backup.writing import Stop, Writer
from storage_node.copies import split_pairs
from storage_node.disk import RocksDisk
from tests.memory_log import MemoryLog
from tests.memory_target import MemoryTarget
from tests.unit.storage_node.backup.givers import Giver, restored
from tests.unit.storage_node.batches import HOUR_MS, T0, fill, make_batch, write


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces_module, "LEAST_BYTES", 200)
    monkeypatch.setattr(pieces_module, "MEAN_BYTES", 200)


@pytest.fixture
def target() -> MemoryTarget:
    return MemoryTarget()


@pytest.fixture
def giver(tmp_path: Path, target: MemoryTarget) -> Iterator[Giver]:
    log = MemoryLog(2)
    fill(log, n_samples=50, step_ms=HOUR_MS)
    giver = Giver(tmp_path / "giver", log, target)
    yield giver
    giver.node.close()
    log.close()


def verified(giver: Giver, run: str, folder: Path) -> list[str]:
    """What is wrong with a backup."""
    backup = giver.chosen(run)
    wrong = list(missing_objects(giver.target, backup))
    for partition, manifest in backup.manifests.items():
        try:
            verify_partition(giver.target, manifest, folder)
        except BackupCorrupt as error:
            wrong.append(f"partition {partition}: {error}")
    return wrong


def test_a_backup_is_consistent_at_its_offset_and_the_log_goes_on_from_there(giver: Giver, tmp_path: Path) -> None:
    run, done = giver.back_up()
    assert done.partitions == 2
    assert done.kept_bytes == 0
    write(giver.log, 1, make_batch([], [(0, T0 + 500 * HOUR_MS, 1.0)]))
    backup = giver.chosen(run)
    assert [(one.next_offset, one.digest) for one in backup.manifests.values()] == giver.digests[run]
    node = restored(giver.target, backup.manifests, tmp_path / "restored", giver.log)
    node.store.wait_caught_up(10)
    assert [shard.records for shard in node.views.shards.values()] == [0, 1]
    assert [row["digest"] for row in node.partitions_status(digest=True)] == [
        row["digest"] for row in giver.status()
    ]
    node.close()


def test_what_has_not_changed_is_not_sent_again(giver: Giver, target: MemoryTarget) -> None:
    _, first = giver.back_up()
    n_objects = len(target.objects)
    _, second = giver.back_up()
    assert (second.sent_bytes, second.kept_bytes) == (0, first.read_bytes)
    assert len(target.objects) == n_objects + 2
    write(giver.log, 1, make_batch([], [(0, T0 + 500 * HOUR_MS, 1.0)]))
    _, third = giver.back_up()
    assert 0 < third.read_bytes - third.kept_bytes < third.read_bytes / 2


def test_a_backup_may_be_of_partitions_that_never_had_a_record(tmp_path: Path, target: MemoryTarget) -> None:
    log = MemoryLog(3)
    write(log, 1, make_batch([(0, {"__name__": "one"})], [(0, T0, 1.0)]))
    giver = Giver(tmp_path / "giver", log, target)
    run, _ = giver.back_up()
    backup = giver.chosen(run)
    assert [len(one.objects) > 0 for one in backup.manifests.values()] == [False, True, False]
    assert verified(giver, run, tmp_path) == []
    node = restored(target, backup.manifests, tmp_path / "restored", log)
    node.store.wait_caught_up(10)
    assert [row["digest"] for row in node.partitions_status(digest=True)] == [
        row["digest"] for row in giver.status()
    ]
    node.close()
    giver.node.close()


def test_verify_finds_a_missing_and_a_shortened_object_and_a_flipped_byte(
    giver: Giver, target: MemoryTarget, tmp_path: Path
) -> None:
    run, _ = giver.back_up()
    assert verified(giver, run, tmp_path) == []
    name = giver.chosen(run).manifests[1].objects[1].name
    kept = target.objects[object_name(name)]
    del target.objects[object_name(name)]
    assert any(f"object {name} is missing" in line for line in verified(giver, run, tmp_path))
    target.put(object_name(name), kept[:-1])
    assert any(
        f"object {name} has {len(kept) - 1} bytes instead of" in line for line in verified(giver, run, tmp_path)
    )
    target.put(object_name(name), kept[:-5] + bytes([kept[-5] ^ 1]) + kept[-4:])
    (wrong,) = verified(giver, run, tmp_path)
    assert name in wrong


def test_verify_counts_samples_anew_and_finds_chunks_that_differ_from_their_record(
    giver: Giver, target: MemoryTarget, tmp_path: Path
) -> None:
    """Checksums are right throughout: somebody else's chunks were written down, as by bad memory."""
    run, _ = giver.back_up()
    manifest = giver.chosen(run).manifests[0]
    before = [fetched(target, one) for one in manifest.objects]
    pairs = [pair for content in before for pair in split_pairs(memoryview(content))]
    other = [
        pair
        for one in giver.chosen(run).manifests[1].objects
        for pair in split_pairs(memoryview(fetched(target, one)))
    ]
    # A block of samples of the other partition, which has other values, under a key of this one.
    first = next(i for i, (key, _) in enumerate(pairs) if key[:1] == b"B")
    last = max(i for i, (key, _) in enumerate(pairs) if key[:1] == b"B")
    assert any(key[:1] == b"B" for key, _ in other)
    pairs[first] = pairs[first][0], pairs[last][1]
    objects = []
    for piece in pieces_module.pieces(pairs):
        stored = pack(piece.content)
        target.put(object_name(piece.name), stored)
        objects.append(Stored(piece.name, len(stored), len(piece.content)))
    target.put(manifest_name(run, 0), encode(with_objects(manifest, objects)))
    from common.errors import CorruptError

    changed = read_manifest(target, run, 0)
    assert changed is not None
    with pytest.raises(CorruptError):
        verify_partition(target, changed, tmp_path)


def with_objects(manifest: Manifest, objects: list[Stored]) -> Manifest:
    from dataclasses import replace

    return replace(manifest, objects=tuple(objects))


def test_what_is_no_piece_of_its_partition_changes_nothing_of_another(
    giver: Giver, target: MemoryTarget, tmp_path: Path
) -> None:
    """A manifest that lists the objects of another partition, or its own in another order."""
    run, _ = giver.back_up()
    manifests = giver.chosen(run).manifests
    disk = RocksDisk(tmp_path / "views")
    restore_partition(target, manifests[1], disk)
    of_other = dict(disk.scan(b"", b"\xff"))
    for objects in (manifests[1].objects, manifests[0].objects[::-1]):
        with pytest.raises(BackupCorrupt):
            restore_partition(target, with_objects(manifests[0], list(objects)), disk)
        after = {key: value for key, value in disk.scan(b"", b"\xff") if key[1:5] == b"\x00\x00\x00\x01"}
        assert after == of_other
    disk.close()


def test_a_target_that_fails_leaves_no_backup_and_what_was_sent_is_kept(
    giver: Giver, target: MemoryTarget
) -> None:
    puts = 0

    def fail_after_some(what: str, name: str) -> None:
        nonlocal puts
        puts += what == "put" and name.startswith("objects/")
        target.failure = "no more" if puts > 4 else None

    target.before = fail_after_some
    with pytest.raises(TargetError, match="no more"):
        giver.back_up()
    target.before, target.failure = lambda what, name: None, None
    with pytest.raises(StartupError, match="no whole backup"):
        choose(target, None)
    giver.digests.clear()
    _, done = giver.back_up()
    assert done.kept_bytes > 0
    assert choose(target, None).is_whole


@pytest.mark.parametrize("least_bytes", [200, 1 << 20], ids=["many pieces", "one piece"])
def test_a_backup_is_given_up_when_it_is_to_stop(
    giver: Giver, target: MemoryTarget, monkeypatch: pytest.MonkeyPatch, least_bytes: int
) -> None:
    monkeypatch.setattr(pieces_module, "LEAST_BYTES", least_bytes)
    giver.node.store.wait_caught_up(10)
    stop = threading.Event()
    target.before = lambda what, name: what == "put" and name.startswith("objects/") and stop.set()
    with Writer(target, "20261128T070000Z", 2, stop=stop) as writer, pytest.raises(Stop):
        writer.write(of_this_process(giver.copies, "giver", 0))
    assert not [name for name in target.objects if name.startswith(("backups/", "running/"))]


def test_a_restore_is_stopped_and_goes_on(giver: Giver, target: MemoryTarget, tmp_path: Path) -> None:
    run, _ = giver.back_up()
    manifests = giver.chosen(run).manifests
    disk, stop = RocksDisk(tmp_path / "restored" / "views"), threading.Event()
    with pytest.raises(RetryableError, match="goes on"):
        restore_partition(target, manifests[0], disk, stop=stop, progress=lambda n_bytes: stop.set())
    disk.close()
    node = restored(target, manifests, tmp_path / "restored", giver.log)
    node.store.wait_caught_up(10)
    assert [shard.records for shard in node.views.shards.values()] == [0, 0]
    node.close()


def test_pruning_keeps_what_the_newest_backups_need_and_nothing_else(
    giver: Giver, target: MemoryTarget, tmp_path: Path
) -> None:
    runs = []
    for i in range(4):
        write(giver.log, 0, make_batch([], [(0, T0 + (500 + i) * HOUR_MS, float(i))]))
        runs.append(giver.back_up()[0])
    pruned = prune(target, 2)
    assert pruned.forgotten == runs[:2]
    assert pruned.objects > 0
    assert [one.run for one in all_backups(target)] == runs[2:]
    used = {one.name for b in all_backups(target) for m in b.manifests.values() for one in m.objects}
    assert {name for name in target.objects if name.startswith("objects/")} == set(map(object_name, used))
    assert all(verified(giver, run, tmp_path) == [] for run in runs[2:])
    assert prune(target, 2) == ([], 0, 0, True)


def test_backups_that_are_not_whole_do_not_count_and_newer_ones_stay(giver: Giver, target: MemoryTarget) -> None:
    runs = [giver.back_up()[0] for _ in range(3)]
    target.delete(manifest_name(runs[0], 0))
    target.delete(manifest_name(runs[2], 1))
    assert prune(target, 1).forgotten == runs[:1]
    assert choose(target, None).run == runs[1]
    with pytest.raises(StartupError, match=f"backup {runs[2]} .* is not whole: it lacks partition 1"):
        choose(target, runs[2])
    newest = newest_of(target, 0)
    assert newest is not None
    assert newest.run == runs[2]
    with pytest.raises(StartupError, match=r"no backup '\.\./x'"):
        choose(target, "../x")


def test_a_target_that_shows_no_backups_loses_no_objects(giver: Giver, target: MemoryTarget) -> None:
    run, _ = giver.back_up()
    hidden = {name: target.objects.pop(name) for name in list(target.objects) if name.startswith("backups/")}
    assert not prune(target, 1).freed
    target.objects |= hidden
    assert not list(missing_objects(target, giver.chosen(run)))


def test_a_manifest_that_cannot_be_read_keeps_all_objects(giver: Giver, target: MemoryTarget) -> None:
    runs = [giver.back_up()[0] for _ in range(2)]
    objects = {name for name in target.objects if name.startswith("objects/")}
    target.put(manifest_name(runs[1], 1), b"{}")
    with pytest.raises(BackupCorrupt):
        prune(target, 1)
    assert objects <= target.objects.keys()


def test_two_logs_that_share_a_target_are_told_apart(giver: Giver, target: MemoryTarget) -> None:
    from dataclasses import replace

    run, _ = giver.back_up()
    other = replace(giver.chosen(run).manifests[1], log="kafka:other")
    target.put(manifest_name(run, 1), encode(other))
    with pytest.raises(BackupCorrupt, match="more than one log"):
        choose(target, run)


def test_objects_are_named_by_the_sha256_of_their_content(giver: Giver, target: MemoryTarget) -> None:
    run, _ = giver.back_up()
    for one in giver.chosen(run).manifests[0].objects:
        assert hashlib.sha256(fetched(target, one)).hexdigest() == one.name


def test_in_a_folder_nothing_lies_outside_of_it_and_nothing_half_written_inside(
    giver: Giver, tmp_path: Path
) -> None:
    before = set(tmp_path.iterdir())
    giver.target = FolderTarget(tmp_path / "backups", create=True)
    giver.back_up()
    assert set(tmp_path.iterdir()) - before == {tmp_path / "backups"}
    assert {path.name for path in (tmp_path / "backups").iterdir()} == {"backups", "objects"}
