"""What only LocalLog does: retention, crashes, disks that refuse, one process at a time."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import LogUnavailable, StartupError
from common.log.base import Append, LogRecord
from common.log.local import LocalLog
from common.log.local_disk import DiskError
from tests.disk_usage import disk_usage

DEADLINE_S = 30.0
HOUR_MS = 3_600_000


class Clock:
    def __init__(self) -> None:
        self.ms = 1_700_000_000_000

    def __call__(self) -> int:
        return self.ms


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        os.sched_yield()


def append(log: LocalLog, partition: int, *values: bytes) -> list[int]:
    return log.append([Append(partition, value) for value in values]).result(timeout=DEADLINE_S)


def read_all(log: LocalLog, position: int = 0, partition: int = 0) -> list[LogRecord]:
    """Everything from a position to the high watermark."""
    reader = log.reader({partition: position})
    out: list[LogRecord] = []
    end = log.bounds(partition).high_watermark
    while not out or out[-1].offset + 1 < end:
        records = reader.poll(0.0)
        if not records:
            break
        out += records
    return out


def test_records_older_than_the_retention_go_and_the_start_moves(tmp_path: Path) -> None:
    clock = Clock()
    log = LocalLog(tmp_path, 2, retention_ms=10 * HOUR_MS, maintenance_interval_s=0.01, now_ms=clock)
    append(log, 0, b"old", b"old")
    clock.ms += HOUR_MS
    wait_for(lambda: log._unmarked_since_ms is None, "a mark")
    clock.ms += HOUR_MS
    append(log, 0, b"new")
    clock.ms += 8 * HOUR_MS + HOUR_MS // 2
    append(log, 1, b"newest")
    assert log.bounds(0) == (0, 3)
    clock.ms += HOUR_MS
    wait_for(lambda: log.bounds(0).start == 2, "retention")
    assert [(r.offset, r.value) for r in read_all(log)] == [(2, b"new")]
    assert log.bounds(1) == (0, 1)
    log.close()


def test_offsets_go_on_when_retention_removed_everything(tmp_path: Path) -> None:
    clock = Clock()
    log = LocalLog(tmp_path, 1, retention_ms=HOUR_MS, maintenance_interval_s=0.01, now_ms=clock)
    append(log, 0, b"a", b"b", b"c")
    clock.ms += HOUR_MS // 4
    wait_for(lambda: log._unmarked_since_ms is None, "a mark")
    clock.ms += 2 * HOUR_MS
    wait_for(lambda: log.bounds(0) == (3, 3), "retention")
    log.close()
    log = LocalLog(tmp_path, 1)
    assert log.bounds(0) == (3, 3)
    reader = log.reader({0: 0})
    assert reader.poll(0.0) == []
    assert append(log, 0, b"d") == [3]
    assert reader.poll(1.0) == [LogRecord(0, 3, b"d")]
    log.close()


def test_a_size_limit_removes_the_oldest_and_frees_the_disk(tmp_path: Path) -> None:
    log = LocalLog(tmp_path, 2, retention_bytes=4 << 20, maintenance_interval_s=0.01, tail_bytes=0)
    value = os.urandom(100_000)
    for _ in range(120):
        append(log, 0, value, value, value)
    wait_for(lambda: log.bounds(0).high_watermark - log.bounds(0).start <= 41, "retention")
    kept = read_all(log)
    assert kept[0].offset == log.bounds(0).start > 0
    assert 30 <= len(kept) <= 41
    log.close()
    # The limit, and what waits in the WAL and in memory that is written at the close.
    assert disk_usage(tmp_path) < 40 << 20
    log = LocalLog(tmp_path, 2)
    assert log.bounds(0).start == kept[0].offset
    log.close()


def test_a_reader_below_the_start_goes_on_at_the_start(tmp_path: Path) -> None:
    log = LocalLog(tmp_path, 1, retention_bytes=1000, maintenance_interval_s=0.01)
    reader = log.reader({0: 0})
    for i in range(40):
        append(log, 0, b"%100d" % i)
    wait_for(lambda: log.bounds(0).start >= 30, "retention")
    assert reader.poll(0.0)[0].offset == log.bounds(0).start
    log.close()


def test_without_a_limit_nothing_is_removed(tmp_path: Path) -> None:
    clock = Clock()
    log = LocalLog(tmp_path, 1, maintenance_interval_s=0.01, now_ms=clock)
    append(log, 0, b"a")
    clock.ms += 100 * HOUR_MS
    wait_for(lambda: log._unmarked_since_ms is None, "a mark")
    append(log, 0, b"b")
    assert log.bounds(0) == (0, 2)
    log.close()


def test_readers_that_follow_read_memory_and_others_the_disk(tmp_path: Path) -> None:
    log = LocalLog(tmp_path, 1, tail_bytes=10_000)
    values = [os.urandom(1000) for _ in range(30)]
    for value in values:
        append(log, 0, value)
    assert len(log._tail[0]) == 10
    assert [r.value for r in read_all(log)] == values
    assert [r.value for r in read_all(log, 25)] == values[25:]
    log.close()


def test_a_second_process_on_the_folder_is_told_so(tmp_path: Path) -> None:
    log = LocalLog(tmp_path, 1)
    script = (
        f"from pathlib import Path; from common.log.local import LocalLog; LocalLog(Path({str(tmp_path)!r}), 1)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "in use by another process" in done.stderr
    with pytest.raises(StartupError, match="in use"):
        LocalLog(tmp_path, 1)
    log.close()
    LocalLog(tmp_path, 1).close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError, match="cannot make the log's folder"):
        LocalLog(tmp_path / "file" / "log", 1)


_WRITER = """
import sys
from pathlib import Path
from common.log.base import Append
from common.log.local import LocalLog

log = LocalLog(Path(sys.argv[1]), 3)
number = 0
while True:
    values = [Append(p, b"%d " % number + bytes(3000)) for p in range(3)]
    offsets = log.append(values).result()
    print(number, *offsets, flush=True)
    number += 1
"""


def test_after_sigkill_every_acknowledged_record_is_there_and_no_offset_is_given_twice(tmp_path: Path) -> None:
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        acknowledged = [process.stdout.readline() for _ in range(200)]
        process.send_signal(signal.SIGKILL)
        acknowledged += process.stdout.readlines()
        process.wait()
        process.stdout.close()
        if acknowledged[-1].count(b" ") < 3 or not acknowledged[-1].endswith(b"\n"):
            acknowledged.pop()
        log = LocalLog(tmp_path, 3)
        records = {(p, r.offset): r.value for p in range(3) for r in read_all(log, partition=p)}
        for line in acknowledged:
            number, *offsets = map(int, line.split())
            for partition, offset in enumerate(offsets):
                assert records[partition, offset].split()[0] == b"%d" % number
        last = int(acknowledged[-1].split()[1])
        assert append(log, 0, b"-1 next")[0] > last
        log.close()


_FULL_DISK = """
import resource, sys
from pathlib import Path
from common.errors import LogUnavailable
from common.log.base import Append
from common.log.local import LocalLog

log = LocalLog(Path(sys.argv[1]), 2, tail_bytes=0)
value = bytes(50_000)
acknowledged = set()
def append(partition):
    acknowledged.add((partition, *log.append([Append(partition, value)]).result()))

for _ in range(10):
    append(0)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
failures = []
for i in range(40):
    try:
        append(i % 2)
    except LogUnavailable as error:
        failures.append(str(error))
assert len(failures) > 10, failures
assert all("File too large" in failure for failure in failures), failures
# Reading goes on.
reader = log.reader({0: 0})
assert len(reader.poll(1.0)) >= 10
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
import time
deadline = time.monotonic() + 20
while True:
    try:
        append(1)
        break
    except LogUnavailable:
        assert time.monotonic() < deadline
append(0)
log.close()
log = LocalLog(Path(sys.argv[1]), 2)
reader = log.reader({0: 0, 1: 0})
found = [(r.partition, r.offset) for r in reader.poll(1.0, 1 << 30) if r.value == value]
assert acknowledged <= set(found), acknowledged - set(found)
assert len(found) == len(set(found))
log.close()
print("fine", len(acknowledged), len(failures))
"""


def test_a_disk_that_refuses_fails_appends_with_its_cause_and_the_log_recovers_when_it_takes_data_again(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert "fine" in done.stdout


def test_a_failed_append_raises_log_unavailable_through_its_future(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LocalLog(tmp_path, 1)

    def refuse(records: object) -> None:
        raise OSError("no such luck")

    monkeypatch.setattr(log._disk, "write", refuse)
    with pytest.raises(LogUnavailable, match="no such luck"):
        append(log, 0, b"x")
    monkeypatch.undo()
    assert append(log, 0, b"y") == [0]
    log.close()


def test_a_log_that_failed_says_why_and_is_well_again_without_being_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LocalLog(tmp_path, 1, maintenance_interval_s=0.01)
    assert log.failure() is None

    def refuse(*_: object) -> None:
        raise DiskError("no room")

    monkeypatch.setattr(log._disk, "write", refuse)
    monkeypatch.setattr(log._disk, "probe", refuse)
    with pytest.raises(LogUnavailable, match="no room"):
        append(log, 0, b"x")
    assert log.failure() == "the log cannot be written: no room"
    monkeypatch.undo()
    wait_for(lambda: log.failure() is None, "recovery")
    assert append(log, 0, b"y") == [0]
    log.close()


def test_closing_a_log_whose_folder_has_gone_raises_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = LocalLog(tmp_path / "log", 1)
    append(log, 0, b"x")
    shutil.rmtree(tmp_path / "log")
    log.close()
    assert "log_close_failed" in "".join(capsys.readouterr())
