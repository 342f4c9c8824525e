"""Queries of tenants take turns."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest

from common.errors import RetryableError
from query.turns import MOST_REST_S, NO_TENANTS, TooManyQueries, TooManyQueriesOfTenant, Turns


class Held:
    """Queries that wait until they are let go, and in which order they began."""

    def __init__(self, max_running: int, limit: int) -> None:
        self.turns = Turns(max_running, lambda tenant: limit if tenant else max_running)
        self.began: list[str] = []
        self.changed = threading.Condition()
        self.left = 0

    def submit(self, name: str, *tenants: str) -> Any:
        return self.turns.submit(tenants or NO_TENANTS, lambda: self._work(name))

    def _work(self, name: str) -> str:
        with self.changed:
            self.began.append(name)
            self.changed.notify_all()
            assert self.changed.wait_for(lambda: self.left > 0, 30)
            self.left -= 1
        return name

    def let_go(self, n: int) -> None:
        with self.changed:
            self.left += n
            self.changed.notify_all()

    def wait_began(self, n: int) -> list[str]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.began) >= n, 30), self.began
            return list(self.began)


@pytest.fixture
def held() -> Iterator[Held]:
    held = Held(2, 1)
    yield held
    held.let_go(1000)
    held.turns.close(30)


def test_a_tenant_runs_no_more_than_it_may_and_others_pass_it(held: Held) -> None:
    futures = [held.submit(f"a{i}", "a") for i in range(3)] + [held.submit("b0", "b")]
    assert held.wait_began(2) == ["a0", "b0"]
    held.let_go(4)
    assert [future.result(30) for future in futures] == ["a0", "a1", "a2", "b0"]


def test_waiting_tenants_come_in_turn() -> None:
    held = Held(1, 1)
    held.submit("z0", "z")
    futures = [held.submit(f"{tenant}{i}", tenant) for tenant in "abc" for i in range(3)]
    held.let_go(10)
    for future in futures:
        future.result(30)
    assert held.began == ["z0", "a0", "b0", "c0", "a1", "b1", "c1", "a2", "b2", "c2"]
    held.turns.close(30)


def test_a_tenant_that_floods_pauses_as_long_as_it_ran_while_others_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns(4, lambda tenant: 1)
    rested: list[float] = []
    monkeypatch.setattr(
        turns._changed, "wait_for", lambda condition, timeout: rested.append(timeout) or condition()
    )
    first = threading.Event()
    futures = [turns.submit(("flood",), lambda: first.wait(30))]
    futures += [turns.submit(("flood",), lambda: True) for _ in range(2)]
    first.set()
    for future in futures:
        assert future.result(30)
    assert rested == []
    turns.submit(("other",), lambda: True).result(30)
    again = threading.Event()
    futures = [turns.submit(("flood",), lambda: again.wait(30)), turns.submit(("flood",), lambda: True)]
    again.set()
    for future in futures:
        assert future.result(30)
    assert len(rested) == 1
    assert 0 <= rested[0] <= MOST_REST_S
    turns.close(30)


def test_a_query_of_several_tenants_counts_for_each(held: Held) -> None:
    futures = [held.submit("ab", "a", "b"), held.submit("b", "b"), held.submit("c", "c")]
    assert held.wait_began(2) == ["ab", "c"]
    held.let_go(3)
    assert {future.result(30) for future in futures} == {"ab", "b", "c"}


def test_a_tenant_may_not_fill_the_queue_of_all(held: Held) -> None:
    for i in range(11):
        held.submit(str(i), "a")
    with pytest.raises(TooManyQueriesOfTenant, match="1 queries of tenant a may run") as refused:
        held.submit("more", "a")
    assert refused.value.status == 429
    for tenant in "bcdefghijkl":
        held.submit("one", tenant)
    with pytest.raises(TooManyQueries, match="--query-max-concurrency"):
        held.submit("one", "m")


def test_what_waits_is_dropped_at_the_end_and_nothing_is_taken_any_more(held: Held) -> None:
    running, waiting = held.submit("a0", "a"), held.submit("a1", "a")
    held.wait_began(1)
    held.let_go(1)
    running.result(30)
    second = held.submit("a2", "a")
    held.wait_began(2)
    held.let_go(1)
    waiting.result(30)
    held.wait_began(3)
    third = held.submit("a3", "a")
    held.turns.close(0.0)
    with pytest.raises(CancelledError):
        third.result(0)
    held.let_go(1)
    assert second.result(30) == "a2"
    with pytest.raises(RetryableError, match="stopping"):
        held.submit("x")
