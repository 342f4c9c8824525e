"""`tabor restore` into folders of every kind, over a real local log."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import StartupError
from common.log.base import Append
from common.log.local import LocalLog
from common.log.url import LOCAL_FOLDER
from common.record import encode_record
from storage_node.backup.errors import TargetError
from storage_node.backup.source import of_this_process
from storage_node.backup.target import open_target
from storage_node.backup.writing import Writer
from storage_node.config import NodeConfig
from storage_node.copies import Copies
from storage_node.service import StorageNode
from tabor.backup import restore
from tabor.backup.restore import run_restore
from tabor.folder import RESTORE_MARK, DataFolder
from tests.unit.storage_node.batches import T0, labels_of, make_batch

RUN = "20261128T070000Z"
PARTITIONS = 2


class Origin:
    """The folder that was backed up. backed_up, now: offset and digest of each partition then, and at the end."""

    def __init__(self, folder: Path, target: str) -> None:
        self.folder, self.target = folder, target
        self.write(folder, first=0, n=20)
        self.backed_up = self.state(folder, target)
        self.write(folder, first=20, n=10)
        self.now = self.state(folder)

    @staticmethod
    def write(folder: Path, *, first: int, n: int) -> None:
        log = LocalLog(folder / LOCAL_FOLDER, PARTITIONS)
        for i in range(first, first + n):
            for partition in range(PARTITIONS):
                series = [(0, labels_of(partition))]
                batch = make_batch(series, [(0, T0 + i * 1000, float(i))], created_ms=T0 + i * 1000)
                log.append([Append(partition, encode_record(batch))]).result(20)
        log.close()

    @staticmethod
    def state(
        folder: Path, target: str | None = None, config: NodeConfig | None = None
    ) -> list[tuple[object, object]]:
        """What `tabor run` would have of the folder; backed up where a target is given."""
        with DataFolder(folder):
            log = LocalLog(folder / LOCAL_FOLDER, None, create=False)
            node = StorageNode(log, config or NodeConfig("local", folder, "local"))
            node.start()
            node.store.wait_caught_up(20)
            found = [(row["next_offset"], row["digest"]) for row in node.partitions_status(digest=True)]
            if target is not None:
                copies = Copies(lambda: node.views, 1e12)
                with Writer(open_target(target, create=True), RUN, PARTITIONS) as writer:
                    for partition in range(PARTITIONS):
                        writer.write(of_this_process(copies, "local", partition))
            node.close()
            log.close()
        return found


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Origin:
    folder = tmp_path_factory.mktemp("origin")
    return Origin(folder / "data", str(folder / "backups"))


def bring_back(
    origin: Origin,
    folder: Path,
    *,
    run: str | None = None,
    log_from: str | None = None,
    until_ms: int | None = None,
    force: bool = False,
) -> None:
    run_restore(origin.target, folder, run=run, log="local", log_from=log_from, until_ms=until_ms, force=force)


def test_a_folder_as_of_the_backup_takes_writes_behind_it(origin: Origin, tmp_path: Path) -> None:
    bring_back(origin, tmp_path / "data")
    assert Origin.state(tmp_path / "data") == origin.backed_up
    Origin.write(tmp_path / "data", first=20, n=10)
    assert Origin.state(tmp_path / "data") == origin.now
    assert not (tmp_path / "data" / RESTORE_MARK).exists()


def test_the_old_log_brings_the_rest(origin: Origin, tmp_path: Path) -> None:
    bring_back(origin, tmp_path / "data", log_from=str(origin.folder))
    assert Origin.state(tmp_path / "data") == origin.now


def test_a_mistyped_log_leaves_no_folder_that_is_half_restored(origin: Origin, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="there is no log in"):
        bring_back(origin, tmp_path / "data", log_from=str(tmp_path / "nowhere"))
    bring_back(origin, tmp_path / "data", log_from=str(origin.folder))
    assert Origin.state(tmp_path / "data") == origin.now


def test_force_does_not_make_a_data_folder_of_any_folder(origin: Origin, tmp_path: Path) -> None:
    (tmp_path / "web.yml").write_text("tokens:")
    with pytest.raises(StartupError, match="it is no data folder"):
        bring_back(origin, tmp_path, force=True)
    assert not (tmp_path / RESTORE_MARK).exists()


@pytest.mark.parametrize("n", [0, 4, 10])
def test_until_takes_what_was_made_no_later(origin: Origin, tmp_path: Path, n: int) -> None:
    until_ms = T0 + (19 + n) * 1000 + 500
    bring_back(origin, tmp_path / "data", log_from=str(origin.folder), until_ms=until_ms)
    by_hand = tmp_path / "by hand"
    Origin.write(by_hand, first=0, n=20 + n)
    assert Origin.state(tmp_path / "data") == Origin.state(by_hand)


def test_force_replaces_damaged_views_and_the_folders_log_goes_on(origin: Origin, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    Origin.write(folder, first=0, n=20)
    Origin.state(folder)
    Origin.write(folder, first=20, n=10)
    for file in (folder / "views").glob("*.sst"):
        file.write_bytes(b"damaged")
    with pytest.raises(StartupError, match="is not empty"):
        bring_back(origin, folder)
    bring_back(origin, folder, force=True)
    assert Origin.state(folder) == origin.now


def test_a_log_that_does_not_go_on_from_the_backup_is_refused_and_nothing_is_changed(
    origin: Origin, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    Origin.write(folder, first=0, n=5)
    before = Origin.state(folder)
    with pytest.raises(StartupError, match=r"offsets 0 to 5 of partition 0, the backup ends at 20"):
        bring_back(origin, folder, force=True)
    assert Origin.state(folder) == before
    with pytest.raises(StartupError, match="has a log of its own"):
        bring_back(origin, folder, force=True, log_from=str(origin.folder))


def test_a_log_of_other_partitions_is_refused(origin: Origin, tmp_path: Path) -> None:
    LocalLog(tmp_path / "data" / LOCAL_FOLDER, PARTITIONS + 1).close()
    with pytest.raises(StartupError, match="has 3 partitions, the backup 2"):
        bring_back(origin, tmp_path / "data", force=True)


def test_a_half_restored_folder_is_not_opened_and_gone_on_with(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    restored: list[int] = []
    whole = restore.restore_partition

    def fail_at_the_second(target, manifest, disk, **more):  # type: ignore[no-untyped-def]
        restored.append(manifest.partition)
        if restored == [0, 1]:
            raise TargetError("cut off")
        whole(target, manifest, disk, **more)

    monkeypatch.setattr(restore, "restore_partition", fail_at_the_second)
    with pytest.raises(TargetError, match="cut off"):
        bring_back(origin, folder)
    with pytest.raises(StartupError, match="half restored; give the same `tabor restore` again"):
        DataFolder(folder)
    with pytest.raises(
        StartupError, match=f"half restored in another way: go on with `tabor restore .* --backup {RUN}`"
    ):
        bring_back(origin, folder, log_from=str(origin.folder))
    # A newer backup has been made meanwhile, which is not what was begun with.
    newer = open_target(origin.target, create=True)
    for partition in range(PARTITIONS):
        newer.put(f"backups/20261128T080000Z/p{partition:05d}.json", b"{}")
    try:
        bring_back(origin, folder)
    finally:
        for partition in range(PARTITIONS):
            newer.delete(f"backups/20261128T080000Z/p{partition:05d}.json")
    assert restored == [0, 1, 1], "what was there was kept"
    assert Origin.state(folder) == origin.backed_up


def test_nonsense_is_refused_in_one_line(origin: Origin, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="there are no backups in"):
        run_restore(
            str(tmp_path / "x"),
            tmp_path / "data",
            run=None,
            log="local",
            log_from=None,
            until_ms=None,
            force=False,
        )
    with pytest.raises(StartupError, match="no backup '2026'"):
        bring_back(origin, tmp_path / "data", run="2026")
    with pytest.raises(StartupError, match="--until needs the log"):
        bring_back(origin, tmp_path / "data", until_ms=5)
    with pytest.raises(StartupError):
        bring_back(origin, tmp_path / "data", log_from=str(tmp_path / "no log"))
