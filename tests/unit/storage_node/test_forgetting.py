"""A tenant that is deleted leaves nothing behind in the views; the others do not notice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cramjam
import pytest
import zstandard

from common.store import MAX_TIME_MS, MIN_TIME_MS, TenantUsage
from common.tenants import Tenancy
from ingest.write_request import (
    exemplar_field,
    histogram_field,
    labels_field,
    metadata_field,
    sample_field,
    series_field,
)
from storage_node.config import NodeConfig
from storage_node.service import StorageNode
from tests.oracles.histogram import NativeHistogram
from tests.processes import wait_for
from tests.tenancies import Tabor, tabor

NATIVE = NativeHistogram(1, 5, 2.5, 0.1, 2, ((-1, 1), (1, 1)), (1, 2), is_float=False)
N_SERIES = 40
N_SAMPLES = 30
SECRET = b"sesame"


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[Tabor]:
    with tabor(tmp_path, Tenancy.OPTIONAL) as found:
        for tenant, word in (("victim", SECRET.decode()), ("default", "usual"), ("other", "usual")):
            send(found, tenant, word)
        settle(found.node)
        yield found


def send(whole: Tabor, tenant: str, word: str) -> None:
    """Series with a word of the tenant in all that it sends."""
    parts = [metadata_field("gauge", f"{word}_metric", f"help {word}", "")]
    for i in range(N_SERIES):
        labels = {"__name__": f"{word}_metric", "i": str(i % 7), "id": f"{word}-{i}", "job": "shared"}
        samples = b"".join(sample_field(i / 4, 1000 * step) for step in range(N_SAMPLES))
        parts.append(series_field(labels_field(labels) + samples + exemplar_field({"trace": word}, 1.0, 5000)))
    native = labels_field({"__name__": f"{word}_native"}) + histogram_field(NATIVE.message(7000))
    parts.append(series_field(native))
    body = bytes(cramjam.snappy.compress_raw(b"".join(parts)))
    assert whole.ask("POST", "/api/v1/write", tenant, content=body).status_code == 204


def settle(node: StorageNode) -> None:
    """Everything is applied, saved, and what is deleted is gone from the disk."""
    node.store.wait_caught_up(10)
    node.views.save(0.0)
    wait_for(lambda: node.store.usage(with_samples=False).n_pending == 0, "the disk is rid of what is deleted")


def found_on_disk(node: StorageNode, text: bytes) -> list[bytes]:
    """Keys of everything that has these bytes, compressed or not."""
    found = []
    for key, value in node.views.disk.scan(b"\x00", b"\xff"):
        plain = value
        if value[:4] == zstandard.FRAME_HEADER:
            plain = zstandard.ZstdDecompressor().decompress(value, max_output_size=1 << 24)
        if text in key or text in value or text in plain:
            found.append(key)
    return found


def answers(whole: Tabor, tenant: str) -> list[Any]:
    every = {"match[]": '{job="shared"}'}
    asked: tuple[tuple[str, dict[str, str]], ...] = (
        ("/api/v1/series", every),
        ("/api/v1/labels", {}),
        ("/api/v1/label/id/values", {}),
        ("/api/v1/metadata", {}),
        ("/api/v1/query_exemplars", {"query": '{job="shared"}'}),
        ("/api/v1/query", {"query": 'sum by (i) ({job="shared"}[30s:1s])', "time": "30"}),
        ("/api/v1/query", {"query": 'count by (__name__) ({__name__=~".+"})', "time": "30"}),
    )
    return [whole.ask("GET", path, tenant, params=params).json() for path, params in asked]


def test_no_byte_of_the_tenant_is_in_the_views_and_the_others_have_all_of_theirs(whole: Tabor) -> None:
    node = whole.node
    before = {tenant: answers(whole, tenant) for tenant in ("default", "other")}
    assert len(found_on_disk(node, SECRET)) > 5
    assert found_on_disk(node, b"victim")
    whole.ingestor.delete_tenant("victim").result(10)
    node.store.wait_caught_up(10)
    assert [answer["data"] for answer in answers(whole, "victim")[:5]] == [[], [], [], {}, []]
    settle(node)
    for text in (SECRET, b"victim"):
        assert found_on_disk(node, text) == []
    assert {tenant: answers(whole, tenant) for tenant in before} == before
    assert set(node.store.usage(with_samples=True).tenants) == {"default", "other"}


def test_a_replay_and_a_restart_come_to_the_same(whole: Tabor, tmp_path: Path) -> None:
    node = whole.node
    whole.ingestor.delete_tenant("victim").result(10)
    send(whole, "other", "again")
    settle(node)
    digests = [shard.state.digest() for shard in node.views.shards.values()]
    fresh = StorageNode(whole.log, NodeConfig("fresh", tmp_path / "fresh", log_identity="memory"))
    fresh.start()
    settle(fresh)
    assert [shard.state.digest() for shard in fresh.views.shards.values()] == digests
    assert found_on_disk(fresh, SECRET) == []
    table = fresh.store.series([], MIN_TIME_MS, MAX_TIME_MS)
    fresh.close()
    again = StorageNode(whole.log, NodeConfig("fresh", tmp_path / "fresh", log_identity="memory"))
    again.start()
    assert [shard.state.digest() for shard in again.views.shards.values()] == digests
    reread = again.store.series([], MIN_TIME_MS, MAX_TIME_MS)
    assert sorted(map(str, map(table.labels, range(len(table))))) == sorted(
        map(str, map(reread.labels, range(len(reread))))
    )
    again.close()


def test_what_the_tenant_writes_afterwards_is_there_at_once(whole: Tabor) -> None:
    before = answers(whole, "victim")
    for _ in range(2):
        whole.ingestor.delete_tenant("victim").result(10)
        send(whole, "victim", SECRET.decode())
        assert answers(whole, "victim") == before
    settle(whole.node)
    assert answers(whole, "victim") == before


def test_an_ingestor_that_was_asked_to_delete_too_declares_again(whole: Tabor) -> None:
    other = Tabor(whole.log, whole.node, whole.node.store, whole.tenancy)
    try:
        send(other, "victim", SECRET.decode())
        before = answers(whole, "victim")
        whole.ingestor.delete_tenant("victim").result(10)
        other.ingestor.delete_tenant("victim").result(10)
        send(other, "victim", SECRET.decode())
        assert answers(whole, "victim") == before
    finally:
        other.close()


def test_usage_counts_series_samples_and_shares_of_the_bytes(whole: Tabor) -> None:
    usage = whole.node.store.usage(with_samples=True)
    n_bytes = sum(shard.state.size_bytes for shard in whole.node.views.shards.values())
    assert sum(one.size_bytes for one in usage.tenants.values()) == pytest.approx(n_bytes, abs=10)
    for one in usage.tenants.values():
        assert (one.series, one.samples) == (N_SERIES + 1, N_SERIES * N_SAMPLES + 1)
    send(whole, "new", "word")
    whole.node.store.wait_caught_up(10)
    assert whole.node.store.usage(with_samples=False).tenants["new"] == TenantUsage(N_SERIES + 1)
    assert whole.node.store.usage(with_samples=True).tenants["new"].samples == N_SERIES * N_SAMPLES + 1
