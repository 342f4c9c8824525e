"""Copies of partitions from one node to another, over the wire's bytes and over HTTP."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from common.control.members import Member
from common.errors import RetryableError
from common.wire.frames import FrameReader, Kind, WireError
from common.wire.marks import COPY_PATH
from common.wire.reports import Copy
from storage_node import acquiring
from storage_node.acquiring import Acquirer
from storage_node.config import NodeConfig
from storage_node.copies import MAX_COPIES, Copies, CopyGone, CopyWriter, Rate
from storage_node.copies_http import router
from storage_node.disk import RocksDisk
from storage_node.errors import NotHeld
from storage_node.service import StorageNode
from tests.memory_disk import MemoryDisk
from tests.memory_log import MemoryLog
from tests.processes import wait_for
from tests.served import served
from tests.unit.storage_node.batches import T0, fill, labels_of, make_batch, write


class Giver:
    """A node with two partitions, and its copies."""

    def __init__(self, folder: Path, log: MemoryLog, **settings: int) -> None:
        self.log = log
        self.node = StorageNode(log, NodeConfig("giver", folder, **settings))  # type: ignore[arg-type]
        self.node.start()
        self.node.store.wait_caught_up(10)
        self.now_s = 0.0
        self.copies = Copies(lambda: self.node.views, 1e12, clock=lambda: self.now_s)

    def digest(self, partition: int) -> object:
        return self.node.partitions_status(digest=True)[partition]["digest"]


@pytest.fixture
def log() -> MemoryLog:
    log = MemoryLog(2)
    fill(log, n_samples=50)
    return log


@pytest.fixture
def giver(tmp_path: Path, log: MemoryLog) -> Iterator[Giver]:
    giver = Giver(tmp_path / "giver", log)
    yield giver
    giver.node.close()


def taker(folder: Path, log: MemoryLog, **settings: int) -> StorageNode:
    node = StorageNode(log, NodeConfig("taker", folder, retry_s=0.05, **settings))  # type: ignore[arg-type]
    node.start(())
    return node


def take(writer: CopyWriter, stream: bytes) -> None:
    reader = FrameReader([stream])
    reader.expect(Kind.HEADER)
    while True:
        kind, payload = reader.next()
        if kind is Kind.END:
            return
        writer.add(payload)


def test_a_copy_has_the_digest_of_its_original_and_goes_on_from_its_offset(
    giver: Giver, log: MemoryLog, tmp_path: Path
) -> None:
    stream = b"".join(giver.copies.frames(giver.copies.begin(1), b""))
    for i in range(5):
        write(log, 1, make_batch([], [(0, T0 + 10_000_000 + i, 1.0)]))
    node = taker(tmp_path / "taker", log)
    writer = CopyWriter(node.views.disk, 1)
    writer.begin()
    take(writer, stream)
    writer.finish()
    node.assign([1])
    wait_for(lambda: node.ready_partitions() == {1}, "the partition is caught up")
    assert node.views.shards[1].records == 5, "only what came after the copy was read from the log"
    giver.node.store.wait_caught_up(10)
    assert node.partitions_status(digest=True)[0]["digest"] == giver.digest(1)
    node.close()


def test_a_copy_that_was_cut_off_goes_on_behind_its_last_key(
    giver: Giver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage_node.copies.CHUNK_BYTES", 50)
    name = giver.copies.begin(0)
    frames = list(giver.copies.frames(name, b""))
    assert len(frames) > 6
    name = giver.copies.begin(0)
    for cut in range(2, len(frames) - 1):
        disk = RocksDisk(tmp_path / f"{cut}")
        writer = CopyWriter(disk, 0)
        writer.begin()
        for part in frames[1:cut]:
            writer.add(FrameReader([part]).next()[1])
        part_of_rest = giver.copies.frames(name, writer.last_key)
        for part in part_of_rest:
            kind, payload = FrameReader([part]).next()
            if kind is Kind.PAIRS:
                writer.add(payload)
            if kind is Kind.END:
                break
        writer.finish()
        whole = {key: value for key, value in giver.node.views.disk.scan(b"\x00", b"\xff") if key != b"M"}
        copied = dict(disk.scan(b"\x00", b"\xff"))
        assert copied == {key: value for key, value in whole.items() if key[1:5] == b"\x00\x00\x00\x00"}
        disk.close()


def test_a_copy_without_its_end_is_no_partition(giver: Giver, log: MemoryLog, tmp_path: Path) -> None:
    frames = list(giver.copies.frames(giver.copies.begin(1), b""))
    node = taker(tmp_path / "taker", log)
    writer = CopyWriter(node.views.disk, 1)
    writer.begin()
    for part in frames[1:-1]:
        writer.add(FrameReader([part]).next()[1])
    node.close()
    node = taker(tmp_path / "taker", log)
    assert not node.views.shards
    node.assign([1])
    wait_for(lambda: node.ready_partitions() == {1}, "the partition is read from the log")
    assert node.views.shards[1].records == 50
    assert node.partitions_status(digest=True)[0]["digest"] == giver.digest(1)
    node.close()


def test_garbled_streams_are_refused_and_change_nothing_of_other_partitions(giver: Giver) -> None:
    payload = bytes(FrameReader([list(giver.copies.frames(giver.copies.begin(1), b""))[1]]).next()[1])
    disk = MemoryDisk()
    for cut in range(1, len(payload), 7):
        writer = CopyWriter(disk, 1)
        try:
            writer.add(memoryview(payload[:cut]))
        except WireError:
            continue
        assert writer.size_bytes <= cut
    of_another = CopyWriter(disk, 0)
    with pytest.raises(WireError, match="another partition"):
        of_another.add(memoryview(payload))
    twice = CopyWriter(disk, 1)
    twice.add(memoryview(payload))
    with pytest.raises(WireError, match="out of order"):
        twice.add(memoryview(payload))
    with pytest.raises(WireError, match="lacks the partition's meta"):
        CopyWriter(disk, 1).finish()


def test_snapshots_are_few_and_given_back_when_nobody_asks(giver: Giver) -> None:
    names = [giver.copies.begin(0) for _ in range(MAX_COPIES)]
    with pytest.raises(RetryableError, match="4 copies"):
        giver.copies.begin(0)
    giver.now_s += 61
    assert giver.copies.begin(0) not in names
    with pytest.raises(CopyGone):
        giver.copies.frames(names[0], b"")
    with pytest.raises(NotHeld):
        giver.copies.begin(7)


def test_a_copy_whose_end_got_lost_goes_on_and_makes_room_for_others(giver: Giver) -> None:
    names = [giver.copies.begin(0) for _ in range(MAX_COPIES)]
    for name in names[1:3]:
        frames = list(giver.copies.frames(name, b""))
        assert list(giver.copies.frames(name, b""))[1:] == frames[1:]
    assert giver.copies.begin(0) not in names
    with pytest.raises(CopyGone):
        giver.copies.frames(names[1], b"")
    giver.copies.begin(0)
    with pytest.raises(RetryableError, match="4 copies"):
        giver.copies.begin(0)
    # Nobody who has not got all of it had to give way.
    assert list(giver.copies.frames(names[0], b""))


def test_copies_do_not_exceed_their_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, slept = 0.0, []
    monkeypatch.setattr("storage_node.copies.time.sleep", slept.append)
    rate = Rate(100.0, lambda: now_s)
    rate.spend(100)
    rate.spend(50)
    assert slept == [0.5]
    now_s = 10.0
    rate.spend(100)
    assert slept == [0.5]


def member_at(address: str, *partitions: int) -> Member:
    applied = dict.fromkeys(partitions, 50)
    return Member("giver", "i", address, applied, frozenset(), ready=True, stopped=False, heard_ms=0, heard_s=0.0)


def test_a_node_copies_from_a_peer_what_the_log_has_no_more(
    giver: Giver, log: MemoryLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.cut(1, 30)
    told: list[Copy] = []
    finish = CopyWriter.finish

    def look(writer: CopyWriter, *, is_empty: bool) -> None:
        told.extend(acquirer.copying.values())
        finish(writer, is_empty=is_empty)

    monkeypatch.setattr(CopyWriter, "finish", look)
    node = taker(tmp_path / "taker", log)
    acquirer = Acquirer(log, lambda: node.views, peer_wait_s=0.2)
    app = FastAPI()
    app.include_router(router("giver", giver.copies))
    with served(app) as address:
        acquirer.start()
        lacking = {1: [member_at(address, 1)]}
        wait_for(lambda: acquirer.want(lacking) == {1}, "the partition is copied")
    acquirer.close()
    assert acquirer.copied == 1
    assert (told[-1].source, told[-1].total_bytes) == ("giver", giver.node.views.shards[1].state.size_bytes)
    assert told[-1].size_bytes > 0
    assert acquirer.copying == {}
    node.assign([1])
    wait_for(lambda: node.ready_partitions() == {1}, "the partition is caught up")
    assert node.partitions_status(digest=True)[0]["digest"] == giver.digest(1)
    node.close()


def test_a_partition_nobody_has_is_read_from_what_is_left_of_the_log(log: MemoryLog, tmp_path: Path) -> None:
    log.cut(1, 30)
    node = taker(tmp_path / "taker", log)
    acquirer = Acquirer(log, lambda: node.views, peer_wait_s=0.1)
    acquirer.start()
    assert acquirer.want({0: [], 1: []}) == frozenset()
    wait_for(lambda: acquirer.want({0: [], 1: []}) == {0, 1}, "both may be opened")
    acquirer.close()
    node.close()


def test_a_peer_with_another_retention_or_that_is_somebody_else_gives_nothing(
    giver: Giver, log: MemoryLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acquiring, "SHORT_LOG_RECORDS", 10)
    monkeypatch.setattr(acquiring, "_PAUSE_S", 0.01)
    node = taker(tmp_path / "taker", log, retention_ms=10**15)
    acquirer = Acquirer(log, lambda: node.views)
    app = FastAPI()
    app.include_router(router("somebody else", giver.copies))
    of_giver = FastAPI()
    of_giver.include_router(router("giver", giver.copies))
    with served(app) as address, served(of_giver) as right:
        acquirer.start()
        sources = {0: [member_at(address, 0), member_at(right, 0)]}
        wait_for(lambda: acquirer.want(sources) == {0}, "it is read from the log after some attempts")
    acquirer.close()
    assert not acquirer.copied
    assert node.views.disk.get(b"P\x00\x00\x00\x00") is None
    node.close()


def test_requests_that_cannot_be_read_are_refused(giver: Giver) -> None:
    import httpx

    app = FastAPI()
    app.include_router(router("giver", giver.copies))
    with served(app) as address:

        def status(body: bytes) -> int:
            return httpx.post(f"http://{address}{COPY_PATH}", content=body, trust_env=False).status_code

        good = b'{"v":1,"node":"giver","partition":0,"snapshot":"","after":""}'
        assert status(good) == 200
        for bad in (
            b"",
            b"[]",
            good.replace(b"0", b"-1"),
            good.replace(b'""}', b'"xyz"}'),
            good.replace(b"1", b"2"),
        ):
            assert status(bad) == 400
        assert status(b" " * 100_000) == 413
        assert status(good.replace(b"giver", b"other")) == 421
        assert status(good.replace(b"0", b"9")) == 503
        assert status(good.replace(b'"snapshot":""', b'"snapshot":"gone"')) == 503


def test_reads_of_a_partition_fail_once_it_is_dropped(giver: Giver) -> None:
    store = giver.node.store.over([0])
    assert store.label_values("series", [], T0, T0 + 10**9)
    giver.node.assign([1])
    wait_for(lambda: 0 not in giver.node.views.shards, "the partition is dropped")
    with pytest.raises(NotHeld):
        store.label_values("series", [], T0, T0 + 10**9)
    with pytest.raises(NotHeld):
        giver.node.store.wait_applied({0: 1}, 1.0)
    assert not list(giver.node.views.disk.scan(b"I\x00\x00\x00\x00", b"I\x00\x00\x00\x01"))
    giver.node.assign([0, 1])
    wait_for(lambda: giver.node.ready_partitions() == {0, 1}, "the partition is there again")
    assert store.label_values("series", [], T0, T0 + 10**9)


def test_a_read_during_which_its_partition_is_dropped_gives_no_answer(giver: Giver) -> None:
    shard = giver.node.views.shards[0]
    reached, go_on = threading.Event(), threading.Event()
    names = shard.state.index.label_names

    def slowly(snos: object) -> set[str]:
        reached.set()
        assert go_on.wait(10)
        return names(snos)  # type: ignore[arg-type]

    shard.state.index.label_names = slowly  # type: ignore[method-assign]
    outcome: list[object] = []

    def read() -> None:
        try:
            outcome.append(giver.node.store.label_names([], T0, T0 + 10**9))
        except NotHeld as error:
            outcome.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    assert reached.wait(10)
    giver.node.assign([1])
    wait_for(lambda: 0 not in giver.node.views.shards, "the partition is dropped")
    go_on.set()
    thread.join()
    assert isinstance(outcome[0], NotHeld)
    assert labels_of(0)


@contextlib.contextmanager
def cutting(address: str, after_bytes: int, times: int) -> Iterator[tuple[str, list[bytes]]]:
    """A proxy that cuts its first connections off after so many bytes; gives its address and the requests."""
    host, port = address.split(":")
    requests: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, socket.create_connection((host, int(port))) as server:
                        request = connection.recv(1 << 16)
                        while b"\r\n\r\n{" not in request:
                            request += connection.recv(1 << 16)
                        requests.append(request)
                        server.sendall(request)
                        left = after_bytes if len(requests) <= times else 1 << 30
                        while left and (data := server.recv(min(left, 1 << 16))):
                            left -= len(data)
                            connection.sendall(data)
                            if data.endswith(b"0\r\n\r\n"):
                                break

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}", requests
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_a_connection_that_breaks_is_made_again_and_the_copy_goes_on(
    giver: Giver, log: MemoryLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage_node.copies.CHUNK_BYTES", 50)
    monkeypatch.setattr(acquiring, "_PAUSE_S", 0.01)
    log.cut(1, 30)
    node = taker(tmp_path / "taker", log)
    acquirer = Acquirer(log, lambda: node.views)
    app = FastAPI()
    app.include_router(router("giver", giver.copies))
    with served(app) as address, cutting(address, 700, 2) as (broken, requests):
        acquirer.start()
        lacking = {1: [member_at(broken, 1)]}
        wait_for(lambda: acquirer.want(lacking) == {1}, "the partition is copied")
    acquirer.close()
    assert acquirer.copied == 1
    assert len(requests) == 3
    assert b'"snapshot":""' in requests[0]
    assert all(b'"snapshot":""' not in request and b'"after":""' not in request for request in requests[1:])
    node.assign([1])
    wait_for(lambda: node.ready_partitions() == {1}, "the partition is caught up")
    assert node.partitions_status(digest=True)[0]["digest"] == giver.digest(1)
    node.close()
