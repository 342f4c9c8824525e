"""The series index against dicts: registrations, orphans, commits, failed commits, crashes, selects."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from numpy.typing import NDArray

from common.labels import StringPool, canonical_labels, series_id
from common.store import Matcher, MatchOp
from storage_node import index as index_module
from storage_node import matching, postings, series_blocks
from storage_node.index import SeriesIndex
from storage_node.patterns import Pattern
from tests.oracles.index import DictDisk, IndexOracle, matches

NAMES = ["__name__", "job", "instance", "zone", "Größe"]
VALUES = ["a", "b", "ab", "abc", "b.c", "x\ny", "日本", "node", "node-1", "node-2", "|", "z" * 200]
REGEXES = [
    "", ".*", ".+", "a", "a|b", "(a|b)", "(?:a|abc|)", "a.*", "a.+", ".*c", ".*b.*", ".+b", "b\\.c", "b.c", "x.y",
    "[ab]+", "node-[0-9]", "node(-1)?", "a||b", "日.*", "nothing", "|", "\\|", "a*", "(a|b).*", ".*|a", ".+.+",
    ".",
]  # fmt: skip
BATTERY = [
    (MatchOp.EQUAL, "a"), (MatchOp.NOT_EQUAL, "a"), (MatchOp.EQUAL, ""), (MatchOp.NOT_EQUAL, ""),
    (MatchOp.REGEX, "a|b|abc"), (MatchOp.NOT_REGEX, "a|b|abc"),
    (MatchOp.REGEX, "[ab]*"), (MatchOp.NOT_REGEX, "[ab]+"),
]  # fmt: skip
"""Asked after every step: a wrong answer that lasts for one step only must not slip through."""

label_sets = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(VALUES), max_size=5)
matchers = st.one_of(
    st.builds(
        Matcher,
        st.sampled_from([MatchOp.EQUAL, MatchOp.NOT_EQUAL]),
        st.sampled_from([*NAMES, "unknown"]),
        st.sampled_from([*VALUES, "", "unknown"]),
    ),
    st.builds(
        Matcher,
        st.sampled_from([MatchOp.REGEX, MatchOp.NOT_REGEX]),
        st.sampled_from([*NAMES, "unknown"]),
        st.sampled_from(REGEXES),
    ),
)


def columns(
    series: Sequence[tuple[bytes, dict[str, str]]],
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8]]:
    sets = [canonical_labels(labels) for _, labels in series]
    ids = np.frombuffer(b"".join(series_id for series_id, _ in series), dtype=np.uint8).reshape(-1, 16)
    offsets = np.cumsum([0, *map(len, sets)], dtype=np.int64)
    return ids, offsets, np.frombuffer(b"".join(sets), dtype=np.uint8)


def identified(labels: dict[str, str]) -> tuple[bytes, dict[str, str]]:
    return series_id(canonical_labels(labels)), labels


class IndexMachine(RuleBasedStateMachine):
    """The index with blocks of 4 series beside the oracle; a crash takes both back to the last commit."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = StringPool()
        self.disk = DictDisk()
        self.index = SeriesIndex(3, self.pool, self.disk)
        self.oracle = IndexOracle()
        self.committed = IndexOracle()

    @rule(sets=st.lists(label_sets, min_size=1, max_size=12))
    def register(self, sets: list[dict[str, str]]) -> None:
        series = [identified(labels) for labels in sets]
        assert self.index.register(*columns(series)).tolist() == self.oracle.register(series)

    @rule()
    def add_an_orphan(self) -> None:
        assert self.index.add_orphan() == len(self.oracle.series)
        self.oracle.series.append(None)

    @precondition(lambda self: None in self.oracle.series)
    @rule(labels=label_sets, data=st.data())
    def adopt(self, labels: dict[str, str], data: st.DataObject) -> None:
        orphans = [sno for sno, known in enumerate(self.oracle.series) if known is None]
        sno = data.draw(st.sampled_from(orphans))
        series_id, _ = identified(labels)
        if series_id not in self.oracle.by_id:
            self.index.adopt(sno, series_id, canonical_labels(labels))
            self.oracle.adopt(sno, series_id, labels)

    @rule()
    def commit(self) -> None:
        self.index.write_changes(self.disk.put)
        self.disk.write()
        self.index.changes_written()
        self.committed = deepcopy(self.oracle)

    @rule()
    def fail_to_commit(self) -> None:
        self.index.write_changes(self.disk.put)
        self.disk.batch = {}

    @rule(sets=st.lists(label_sets, min_size=1, max_size=4))
    def register_while_a_commit_is_under_way(self, sets: list[dict[str, str]]) -> None:
        self.index.write_changes(self.disk.put)
        self.committed = deepcopy(self.oracle)
        self.register(sets)
        self.disk.write()
        self.check()
        self.index.changes_written()

    @rule(same_pool=st.booleans())
    def crash(self, same_pool: bool) -> None:
        self.pool = self.pool if same_pool else StringPool()
        self.index = SeriesIndex(3, self.pool, self.disk)
        self.index.load()
        self.oracle = deepcopy(self.committed)

    @rule(conditions=st.lists(matchers, max_size=3))
    def select(self, conditions: list[Matcher]) -> None:
        found = self.index.select(conditions)
        assert found.dtype == np.uint32
        assert found.tolist() == self.oracle.select(conditions)
        series = [self.oracle.series[sno] or {} for sno in found.tolist()]
        assert list(self.index.table(found)) == series
        assert self.index.label_names(found) == {name for labels in series for name in labels}
        for name in NAMES:
            assert self.index.label_values(name, found) == {labels[name] for labels in series if name in labels}

    @invariant()
    def check(self) -> None:
        series = self.oracle.series
        assert len(self.index) == len(series)
        snos = np.arange(len(series), dtype=np.uint32)[::-1]
        assert list(self.index.table(snos)) == [labels or {} for labels in reversed(series)]
        assert self.index.metric_order(snos).tolist() == self.oracle.metric_order(snos.tolist())
        ids = self.index.ids(snos)
        for sno, labels in enumerate(series):
            wanted = bytes(16) if labels is None else identified(labels)[0]
            assert ids[len(series) - 1 - sno].tobytes() == wanted
            assert labels is None or self.index.find(wanted) == sno
        for name in ("job", "__name__"):
            for op, value in BATTERY:
                condition = Matcher(op, name, value)
                assert self.index.select([condition]).tolist() == self.oracle.select([condition]), condition
        every = [labels for labels in series if labels]
        assert self.index.label_names() == {name for labels in every for name in labels}
        assert self.index.label_values("job") == {labels["job"] for labels in every if "job" in labels}


IndexMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that few series reach every form of blocks and postings."""
    monkeypatch.setattr(index_module, "BLOCK_SERIES", 4)
    monkeypatch.setattr(series_blocks, "BLOCK_SERIES", 4)
    monkeypatch.setattr(index_module, "LOAD_BLOCKS", 2)
    monkeypatch.setattr(postings, "SMALL_POSTING", 3)
    monkeypatch.setattr(postings, "READ_BATCH", 2)


@pytest.mark.parametrize("cost", [0, 2, 10**6], ids=["by postings", "mixed", "by looking at labels"])
def test_the_index_says_what_dicts_say(cost: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "POSTING_COST_SERIES", cost)
    IndexMachine.TestCase("runTest").runTest()


@given(st.sampled_from(REGEXES), st.one_of(st.sampled_from(VALUES), st.text("ab.c\n", max_size=4)))
@settings(deadline=None)
def test_a_pattern_matches_what_the_expression_matches(regex: str, value: str) -> None:
    matcher = Matcher(MatchOp.REGEX, "job", regex)
    pattern = Pattern(regex)
    assert pattern.matches(value) == matches(matcher, {"job": value})
    assert pattern.literals is None or (value in pattern.literals) == pattern.matches(value)
