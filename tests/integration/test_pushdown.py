"""Pushdown over HTTP: nodes that each hold some partitions, several of them each partition."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from common.control.events import Event, EventKind, encode_record, key_of
from common.errors import RetryableError
from common.membership import Membership
from common.store import TooManySamples
from query.engine.budget import Budget
from query.engine.engine import Engine, EngineConfig, QueryCancelled
from query.engine.values import EvalError
from query.promql.printer import format_expr
from query.pushdown.answering import evaluate
from query.remote import RemoteStore
from storage_node.reads_http import NodeReads
from tests.integration.test_remote_store import served
from tests.memory_control import Broker
from tests.memory_store import MemoryStore
from tests.processes import wait_for
from tests.property.test_engine import END, NAMES, START, STEP, data, expressions
from tests.property.test_pushdown import answer

N_PARTITIONS = 5
HELD = {"one": (0, 1, 2), "two": (1, 2, 3, 4), "three": (0, 3, 4)}


class Node:
    """A node that reads from what all have, confined to its partitions."""

    def __init__(self, name: str, partitions: list[list[Any]]) -> None:
        self.name = name
        self._partitions = partitions
        self.n_evaluations = 0
        self.slow = threading.Event()
        self.ended = threading.Event()
        self.fails = False

    def over(self, partitions: Sequence[int]) -> Any:
        if not set(partitions) <= set(HELD[self.name]):
            raise RetryableError("this node does not hold that partition")
        return MemoryStore(series for partition in partitions for series in self._partitions[partition])

    def wait_applied(self, wanted: Mapping[int, int], timeout_s: float) -> None:
        """Everything is."""

    def evaluate(self, store: Any, asked: Any, ends: Sequence[threading.Event]) -> Iterator[bytes]:
        self.n_evaluations += 1
        if self.fails:
            raise RetryableError("not now")
        while self.slow.is_set():
            if any(end.wait(0.01) for end in ends):
                self.ended.set()
                break
        return evaluate(store, asked, ends)


class Cluster:
    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.partitions: list[list[Any]] = [[] for _ in range(N_PARTITIONS)]
        self.nodes = {name: Node(name, self.partitions) for name in HELD}
        broker = Broker()
        membership = Membership(broker.topic())
        membership.start()
        stack.callback(membership.close)
        offset = 0
        for node in self.nodes.values():
            reads = NodeReads(node.name, node, evaluate=node.evaluate, keep_alive_s=0.05)
            stack.callback(reads.close)
            app = FastAPI()
            app.include_router(reads.router())
            address = stack.enter_context(served(app))
            held = dict.fromkeys(HELD[node.name], 10)
            event = Event(EventKind.HEARTBEAT, node.name, node.name, address, held, frozenset(), True, 0)
            broker.clock_ms = lambda: time.time_ns() // 1_000_000
            offset = broker.append(key_of(event), encode_record(event))
        assert membership.wait_position(offset + 1, 10)
        self.store = RemoteStore(membership, N_PARTITIONS, lambda _: [10] * N_PARTITIONS)
        stack.callback(self.store.close)
        self.engine = Engine(self.store, EngineConfig())

    def fill(self, series: list[Any], dice: random.Random) -> None:
        for partition in self.partitions:
            partition.clear()
        for one in series:
            dice.choice(self.partitions).append(one)


@pytest.fixture(scope="module")
def whole() -> Iterator[Cluster]:
    with contextlib.ExitStack() as stack:
        yield Cluster(stack)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with contextlib.ExitStack() as stack:
        found = Cluster(stack)
        found.fill([({"__name__": "m", "i": str(i)}, [(0, i / 7), (30_000, i / 3)]) for i in range(50)], DICE)
        yield found


DICE = random.Random(5)


@settings(deadline=None, max_examples=60)
@given(data(), expressions(3, NAMES), st.integers(0, 1 << 32), st.booleans())
def test_a_query_over_nodes_answers_as_over_one(
    whole: Cluster, series: list[Any], expr: Any, seed: int, is_range: bool
) -> None:
    whole.fill(series, random.Random(seed))
    query, times = format_expr(expr), (START, END, STEP) if is_range else (END,)
    assert answer(whole.engine, query, times) == answer(Engine(MemoryStore(series), EngineConfig()), query, times)


def test_a_strong_read_is_evaluated_too(cluster: Cluster) -> None:
    cluster.store.wait_caught_up(5.0)
    assert cluster.engine.instant("count(m)", 0).value.values.tolist() == [[50.0]]  # type: ignore[union-attr]


def test_another_node_evaluates_what_one_does_not(cluster: Cluster) -> None:
    expected = answer(cluster.engine, "sum(m)", (0,))
    for name in HELD:
        failing = cluster.nodes[name]
        failing.fails, failing.n_evaluations = True, 0
        assert answer(cluster.engine, "sum(m)", (0,)) == expected
        failing.fails = False
        cluster.store._scatter._avoid_until_s.clear()
    for node in cluster.nodes.values():
        node.fails = True
    with pytest.raises(RetryableError, match="not now"):
        cluster.engine.instant("sum(m)", 0)


def test_what_is_wrong_with_a_query_is_told_as_if_it_were_evaluated_here(cluster: Cluster) -> None:
    with pytest.raises(EvalError, match="Parameter value is NaN"):
        cluster.engine.instant("topk(NaN, m)", 0)
    with pytest.raises(TooManySamples, match="more than 99 samples"):
        Engine(cluster.store, EngineConfig(max_samples=99)).instant("sum(rate(m[5m]))", 30_000)


def test_an_evaluation_ends_when_its_query_does(cluster: Cluster) -> None:
    for node in cluster.nodes.values():
        node.slow.set()
    cancelled, outcome = threading.Event(), []

    def ask() -> None:
        try:
            cluster.engine.instant("sum(m)", 0, budget=Budget(1000, 1000, 60.0, cancelled))
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    wait_for(lambda: sum(node.n_evaluations for node in cluster.nodes.values()), "nodes evaluate")
    cancelled.set()
    thread.join(10)
    assert isinstance(outcome[0], QueryCancelled)
    wait_for(lambda: any(node.ended.is_set() for node in cluster.nodes.values()), "evaluations end")
