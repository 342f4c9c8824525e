"""The series index: growth, damage, forms on disk. `tests/property/test_index.py` compares it with dicts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyroaring import BitMap

from bench.bench_index import bench
from common.errors import CallerError, CorruptError
from common.labels import StringPool, canonical_labels, series_id
from common.store import Matcher, MatchOp
from storage_node.caches import ByteLru
from storage_node.index import SeriesIndex
from storage_node.patterns import compile_pattern
from storage_node.postings import posting_key
from storage_node.series_blocks import decode_block
from storage_node.series_labels import count_labels
from tests.oracles.index import DictDisk, IndexOracle

EQUAL, REGEX = MatchOp.EQUAL, MatchOp.REGEX


def columns(sets: Sequence[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8]]:
    ids = np.frombuffer(b"".join(map(series_id, sets)), dtype=np.uint8).reshape(-1, 16)
    return ids, np.cumsum([0, *map(len, sets)], dtype=np.int64), np.frombuffer(b"".join(sets), dtype=np.uint8)


def register(index: SeriesIndex, *label_sets: dict[str, str]) -> list[int]:
    return index.register(*columns([canonical_labels(labels) for labels in label_sets])).tolist()


def commit(index: SeriesIndex, disk: DictDisk) -> None:
    index.write_changes(disk.put)
    disk.write()
    index.changes_written()


def reloaded(disk: DictDisk) -> SeriesIndex:
    index = SeriesIndex(3, StringPool(), disk)
    index.load()
    return index


def many(n: int) -> list[dict[str, str]]:
    return [
        {"__name__": f"metric_{i % 40}", "instance": f"host-{i % 300}", "pod": f"pod-{i}", f"label_{i % 90}": "x"}
        for i in range(n)
    ]


def test_tables_that_grow_lose_nothing() -> None:
    disk, oracle, sets = DictDisk(), IndexOracle(), many(6000)
    index = SeriesIndex(3, StringPool(), disk)
    oracle.register([(series_id(canonical_labels(labels)), labels) for labels in sets])
    for first in range(0, 6000, 1500):
        assert register(index, *sets[first : first + 1500]) == list(range(first, first + 1500))
    conditions = [Matcher(EQUAL, "instance", "host-17"), Matcher(REGEX, "pod", "pod-[1-9]*")]
    wanted = oracle.select(conditions)
    assert len(wanted) > 3
    for known in (index, None):
        if known is None:
            commit(index, disk)
            known = reloaded(disk)
        assert register(known, *sets) == list(range(6000))
        assert known.select(conditions).tolist() == wanted
        snos = np.arange(6000, dtype=np.uint32)
        assert list(known.table(snos)) == sets
        assert known.metric_order(snos).tolist() == oracle.metric_order(range(6000))
        assert known.label_names(snos) == known.label_names() == {name for labels in sets for name in labels}
        assert all(known.find(known.ids(snos[i : i + 1]).tobytes()) == i for i in range(0, 6000, 500))


def test_an_id_is_known_by_all_of_its_bytes() -> None:
    ids = np.zeros((17, 16), dtype=np.uint8)
    ids[np.arange(16), np.arange(16)] = 1
    index = SeriesIndex(0, StringPool(), DictDisk())
    offsets = np.zeros(18, dtype=np.int64)
    assert index.register(ids, offsets, np.zeros(0, dtype=np.uint8)).tolist() == list(range(17))
    assert index.find(bytes(15) + b"\2") is None


def test_a_conditions_absent_label_is_the_empty_string() -> None:
    index = SeriesIndex(0, StringPool(), DictDisk())
    register(index, {"__name__": "m", "job": "a"}, {"__name__": "m"}, {"__name__": "m", "job": "b"})
    for op, value, wanted in [
        (EQUAL, "", [1]),
        (MatchOp.NOT_EQUAL, "", [0, 2]),
        (MatchOp.NOT_EQUAL, "a", [1, 2]),
        (REGEX, "a|", [0, 1]),
        (REGEX, ".*", [0, 1, 2]),
        (REGEX, ".+", [0, 2]),
        (MatchOp.NOT_REGEX, ".+", [1]),
        (MatchOp.NOT_REGEX, "[a]?", [2]),
        (MatchOp.NOT_REGEX, ".*", []),
    ]:
        assert index.select([Matcher(op, "job", value)]).tolist() == wanted, (op, value)
    assert index.select([Matcher(EQUAL, "never seen", "")]).tolist() == [0, 1, 2]
    assert index.select([]).tolist() == [0, 1, 2]


def test_an_expression_is_tried_on_the_values_of_few_series_only(monkeypatch: pytest.MonkeyPatch) -> None:
    index = SeriesIndex(0, StringPool(), DictDisk())
    register(index, *({"__name__": f"m{i % 100}", "pod": f"pod-{i}"} for i in range(2000)), {"__name__": "m7"})
    tried: list[str] = []
    pattern = compile_pattern("pod-.*0[0-9]|")
    matches = pattern.matches
    monkeypatch.setattr(pattern, "matches", lambda value: (tried.append(value), matches(value))[1])
    wanted = [i for i in range(7, 2000, 100) if i > 100] + [2000]
    few = Matcher(EQUAL, "__name__", "m7")
    assert index.select([Matcher(REGEX, "pod", "pod-.*0[0-9]|"), few]).tolist() == wanted
    assert index.select([Matcher(MatchOp.NOT_REGEX, "pod", "pod-.*0[0-9]|"), few]).tolist() == [7]
    assert len(tried) < 100
    assert len(index.select([Matcher(REGEX, "pod", "pod-.*0[0-9]|")])) == 191
    n_tried = len(tried)
    assert n_tried > 2000
    assert index.select([Matcher(REGEX, "pod", "pod-.*0[0-9]|"), few]).tolist() == wanted
    assert len(tried) < n_tried + 10


def test_an_expression_is_anchored_and_its_dot_matches_a_newline() -> None:
    assert not compile_pattern("a[b]").matches("xab")
    assert not compile_pattern("a[b]").matches("abx")
    assert not compile_pattern("a[b]").matches("ab\n")
    assert compile_pattern("a.[b]").matches("a\nb")
    assert compile_pattern("(?i)NODE").matches("node")
    assert compile_pattern("ü.").matches("üß")
    assert compile_pattern("a\\.b|c").literals == {"a.b", "c"}


@pytest.mark.parametrize("regex", ["(", "a)(b", "[z-a]", "*", "a**", "(?=a)", "\\", "a\\1", "(a\\)", "\ud800+"])
def test_an_invalid_expression_is_the_callers_error(regex: str) -> None:
    index = SeriesIndex(0, StringPool(), DictDisk())
    register(index, {"__name__": "m"})
    with pytest.raises(CallerError, match="invalid regular expression"):
        index.select([Matcher(REGEX, "job", regex)])


@pytest.mark.parametrize("regex", ["(", "(a\\)"])
def test_an_invalid_expression_is_refused_even_if_nothing_is_left_to_match(regex: str) -> None:
    index = SeriesIndex(0, StringPool(), DictDisk())
    with pytest.raises(CallerError, match="invalid regular expression"):
        index.select([Matcher(EQUAL, "job", "x"), Matcher(REGEX, "job", regex)])


BAD_SETS = {
    "cut in a name": b"\x05job",
    "cut in a value": b"\x03job\x05ab",
    "no value": b"\x03job",
    "empty name": b"\x00\x01a",
    "empty value": b"\x03job\x00",
    "endless length": b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    "names descend": b"\x01b\x01x\x01a\x01x",
    "a name twice": b"\x01a\x01x\x01a\x01y",
    "not UTF-8": b"\x01a\x01\xff",
    "a surrogate": b"\x01a\x03\xed\xa0\x80",
}


@pytest.mark.parametrize("bad", BAD_SETS.values(), ids=BAD_SETS.keys())
def test_a_record_with_a_bad_label_set_changes_nothing(bad: bytes) -> None:
    index = SeriesIndex(7, StringPool(), DictDisk())
    register(index, {"__name__": "known"})
    good = [canonical_labels(labels) for labels in many(400)]
    with pytest.raises(CorruptError, match="label set 400 is not canonical") as caught:
        index.register(*columns([*good, bad, *good]))
    assert caught.value.partition == 7
    assert len(index) == 1
    assert index.find(series_id(good[3])) is None
    assert index.label_names() == {"__name__"}
    assert index.register(*columns(good)).tolist() == list(range(1, 401))
    orphan = index.add_orphan()
    with pytest.raises(CorruptError):
        index.adopt(orphan, series_id(bad), bad)
    index.adopt(orphan, series_id(b"\x01a\x01b"), b"\x01a\x01b")
    assert index.find(series_id(b"\x01a\x01b")) == orphan


def canonical_or_none(data: bytes) -> int | None:
    """Number of labels, or None if the bytes are not a canonical label set; in the plainest way."""
    texts, at = [], 0
    while at < len(data):
        length = shift = 0
        while True:
            if at == len(data) or shift == 28:
                return None
            length |= (data[at] & 0x7F) << shift
            shift += 7
            at += 1
            if data[at - 1] < 0x80:
                break
        texts.append(data[at : at + length])
        at += length
    names = texts[::2]
    try:
        [text.decode() for text in texts]
    except UnicodeDecodeError:
        return None
    right = at == len(data) and len(texts) % 2 == 0 and all(texts) and names == sorted(set(names))
    return len(names) if right else None


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_label_bytes_from_outside_are_read_or_refused(data: st.DataObject) -> None:
    raw = bytearray(canonical_labels(data.draw(st.dictionaries(st.text(), st.text(), max_size=4))))
    for _ in range(data.draw(st.integers(0, 3))):
        if raw:
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw
    offsets, labels = np.array([0, len(raw)]), np.frombuffer(bytes(raw), dtype=np.uint8)
    wanted = canonical_or_none(bytes(raw))
    if wanted is None:
        with pytest.raises(CorruptError):
            count_labels(np.zeros(1, dtype=np.int64), offsets, labels, 0)
    else:
        assert count_labels(np.zeros(1, dtype=np.int64), offsets, labels, 0).tolist() == [wanted]


def test_offsets_out_of_bounds_are_refused() -> None:
    index = SeriesIndex(0, StringPool(), DictDisk())
    ids, offsets, data = columns([canonical_labels(labels) for labels in many(3)])
    swapped = offsets[[0, 2, 1, 3]]
    for bad in (offsets + 1, swapped, offsets[:0], offsets[:3], offsets - 1):
        with pytest.raises(CorruptError, match="out of bounds"):
            index.register(ids, bad, data)
        assert len(index) == 0


def test_keys_and_blocks_are_as_documented() -> None:
    disk = DictDisk()
    index = SeriesIndex(3, StringPool(), disk)
    sets = [{"a": "x"}, {"a": "x", "b": "é"}, *({"c": f"{i}", "d": "y"} for i in range(20))]
    register(index, *sets[:2])
    index.add_orphan()
    register(index, *sets[2:])
    commit(index, disk)
    assert sorted(disk.data) == [b"p\0\0\0\1ax", b"p\0\0\0\1dy", b"s\0\0\0\0"]
    assert disk.data[posting_key("a", "x")] == b"\0" + b"\0\0\0\0" + b"\1\0\0\0"
    assert disk.data[posting_key("d", "y")][:1] == b"\1"
    assert BitMap.deserialize(disk.data[posting_key("d", "y")][1:]) == BitMap(range(3, 23))
    block = zstandard.ZstdDecompressor().decompress(disk.data[b"s\0\0\0\0"])
    labels = [canonical_labels(labels) for labels in sets]
    ids = b"".join(map(series_id, labels))
    lengths = [len(labels[0]), len(labels[1]), 0, *map(len, labels[2:])]
    assert block == (
        b"\1\x17\0\0\0"
        + (b"\1\1\0" + b"\1" * 20)
        + (ids[:32] + bytes(16) + ids[32:])
        + np.array(lengths, dtype="<u4").tobytes()
        + b"".join(labels)
    )


def test_an_orphan_adopted_in_a_complete_block_is_there_after_a_restart() -> None:
    disk = DictDisk()
    index = SeriesIndex(3, StringPool(), disk)
    register(index, *many(5))
    orphan = index.add_orphan()
    register(index, *many(3000))
    commit(index, disk)
    labels = {"__name__": "late", "instance": "host-1"}
    index.adopt(orphan, series_id(canonical_labels(labels)), canonical_labels(labels))
    commit(index, disk)
    assert disk.batch == {}
    for known in (index, reloaded(disk)):
        assert known.select([Matcher(EQUAL, "__name__", "late")]).tolist() == [orphan]
        assert orphan in known.select([Matcher(EQUAL, "instance", "host-1")]).tolist()
        assert known.find(series_id(canonical_labels(labels))) == orphan


def test_a_commit_writes_what_changed_and_nothing_else() -> None:
    disk = DictDisk()
    index = SeriesIndex(3, StringPool(), disk)
    register(index, *many(2500))
    commit(index, disk)
    index.write_changes(disk.put)
    assert disk.batch == {}
    index.changes_written()
    register(index, {"__name__": "metric_1", "pod": "pod-2500"})
    index.write_changes(disk.put)
    assert sorted(disk.batch) == [posting_key("__name__", "metric_1"), b"s\0\0\0\2"]


def test_a_posting_is_read_once_and_again_after_it_changed() -> None:
    disk = DictDisk()
    index = SeriesIndex(3, StringPool(), disk)
    register(index, *({"job": "a", "i": str(i)} for i in range(50)))
    commit(index, disk)
    for other in range(3):
        assert (
            len(index.select([Matcher(EQUAL, "job", "a"), Matcher(MatchOp.NOT_EQUAL, "i", f"none-{other}")])) == 50
        )
    assert disk.reads == 1
    register(index, {"job": "a", "i": "50"})
    assert len(index.select([Matcher(EQUAL, "job", "a")])) == 51
    assert disk.reads == 1
    commit(index, disk)
    assert len(index.select([Matcher(EQUAL, "job", "a"), Matcher(MatchOp.NOT_EQUAL, "i", "none")])) == 51
    assert disk.reads == 2


def test_what_was_selected_is_selected_anew_when_a_series_comes_or_is_adopted() -> None:
    index = SeriesIndex(3, StringPool(), DictDisk())
    matchers = [Matcher(EQUAL, "job", "a")]
    register(index, {"job": "a", "i": "0"})
    orphan = index.add_orphan()
    first = index.select(matchers)
    assert first.tolist() == [0]
    assert index.select(matchers) is first
    both = np.array([0, orphan], dtype=np.uint32)
    assert list(index.table(both)) == [{"job": "a", "i": "0"}, {}]
    labels = canonical_labels({"job": "a", "i": "1"})
    index.adopt(orphan, series_id(labels), labels)
    assert index.select(matchers).tolist() == [0, orphan]
    assert list(index.table(both)) == [{"job": "a", "i": "0"}, {"job": "a", "i": "1"}]
    assert index.table(both) is index.table(both)
    register(index, {"job": "a", "i": "2"})
    assert index.select(matchers).tolist() == [0, orphan, 2]
    assert index.select([]).tolist() == [0, 1, 2]


def test_damage_on_disk_is_a_typed_error() -> None:
    disk = DictDisk()
    index = SeriesIndex(3, StringPool(), disk)
    register(index, *many(2500))
    commit(index, disk)
    block = disk.data[b"s\0\0\0\1"]
    for cut in range(0, len(block), 97):
        with pytest.raises(CorruptError):
            decode_block(block[:cut], 3)
    for at in range(0, len(block), 97):
        flipped = block[:at] + bytes([block[at] ^ 0x10]) + block[at + 1 :]
        with pytest.raises(CorruptError):
            decode_block(flipped, 3)
    whole = dict(disk.data)
    disk.data = {key: value for key, value in whole.items() if key != b"s\0\0\0\1"}
    with pytest.raises(CorruptError, match="block 1 is missing"):
        reloaded(disk)
    disk.data = {key: value for key, value in whole.items() if key[:1] == b"s"}
    with pytest.raises(CorruptError, match="missing"):
        reloaded(disk).select([Matcher(EQUAL, "instance", "host-1")])
    for raw in (b"", b"\0abc", b"\1abc", b"\2"):
        disk.data[posting_key("instance", "host-1")] = raw
        with pytest.raises(CorruptError, match="posting"):
            reloaded(disk).select([Matcher(EQUAL, "instance", "host-1")])


def test_a_pool_gives_one_code_to_a_string_however_it_comes() -> None:
    pool = StringPool()
    by_hand = pool.intern("node")
    index = SeriesIndex(0, pool, DictDisk())
    register(index, {"__name__": "up", "job": "node"})
    assert index.table(np.zeros(1, dtype=np.uint32)).column("job").tolist() == [by_hand]
    later = pool.intern("später")
    register(index, {"__name__": "up", "job": "später"})
    assert index.table(np.ones(1, dtype=np.uint32)).column("job").tolist() == [later]
    up = pool.find("up")
    assert up is not None
    assert pool[up] == "up"
    assert pool.intern("up") == up
    assert [pool.find(pool[code]) for code in range(len(pool))] == list(range(len(pool)))
    assert pool.fork().find("node") == by_hand


def test_partitions_share_a_pool() -> None:
    pool = StringPool()
    first, second = SeriesIndex(0, pool, DictDisk()), SeriesIndex(1, pool, DictDisk())
    sets = many(700)
    register(first, *sets[:400])
    register(second, *sets[300:])
    every = np.arange(400, dtype=np.uint32)
    assert list(first.table(every)) == sets[:400]
    assert list(second.table(every)) == sets[300:]
    in_first = first.table(every[300:]).column("pod").tolist()
    assert second.table(every[:100]).column("pod").tolist() == in_first


def test_threads_may_add_to_one_pool_at_the_same_time() -> None:
    pool, sets = StringPool(), many(3000)
    indexes = [SeriesIndex(partition, pool, DictDisk()) for partition in range(3)]

    def fill(index: SeriesIndex) -> None:
        for first in range(0, 3000, 50):
            register(index, *sets[first : first + 50])
            pool.intern(f"by hand {first // 200}")
            index.write_changes(lambda key, value: None)

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(fill, indexes))
    every = np.arange(3000, dtype=np.uint32)
    assert all(list(index.table(every)) == sets for index in indexes)
    assert [pool.find(pool[code]) for code in range(len(pool))] == list(range(len(pool)))


def test_a_cache_keeps_to_its_limit() -> None:
    cache: ByteLru[int, str] = ByteLru(100)
    for key in range(5):
        cache.put(key, str(key), 30)
        assert cache.get(0) is None or cache.get(0) == "0"
    assert [key for key in range(5) if key in cache] == [0, 3, 4]
    cache.put(9, "too large", 101)
    assert 9 not in cache
    assert len(cache) == 3
    cache.put(0, "larger", 60)
    assert [key for key in range(5) if key in cache] == [0, 4]


def test_the_bench_selects_the_same_as_ever() -> None:
    assert bench(2_000) == "9f92499b911fbf70"


def test_the_kernels_are_plain_python_too() -> None:
    script = (
        "import numpy as np; np.seterr(over='ignore')\n"
        "from tests.unit.storage_node.test_index import *\n"
        "test_a_conditions_absent_label_is_the_empty_string()\n"
        "test_keys_and_blocks_are_as_documented()\n"
        "test_partitions_share_a_pool()\n"
        "test_a_record_with_a_bad_label_set_changes_nothing(BAD_SETS['not UTF-8'])\n"
    )
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=120)
