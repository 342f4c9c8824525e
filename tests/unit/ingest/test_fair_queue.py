"""Tenants have equal shares of what leaves the queue."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ingest.fair_queue import ITEM_COST, FairQueue


def test_a_tenant_that_sends_little_does_not_wait_behind_one_that_floods() -> None:
    queue: FairQueue[str] = FairQueue()
    for i in range(100):
        queue.push("flood", 10_000, f"flood {i}")
    for _ in range(50):
        queue.pop()
    queue.push("small", 100, "small")
    assert [queue.pop(), queue.pop()] in (["flood 50", "small"], ["small", "flood 50"])


def test_shares_are_equal_by_size_not_by_number() -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    for _ in range(400):
        queue.push("small", 1_000, ("small", 1_000 + ITEM_COST))
        queue.push("large", 28_000, ("large", 28_000 + ITEM_COST))
    cost = {"small": 0, "large": 0}
    for _ in range(300):
        tenant, size = queue.pop()
        cost[tenant] += size
    assert abs(cost["small"] - cost["large"]) <= 30_000


def test_a_tenant_that_waits_for_each_answer_gains_nothing_by_it() -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(200):
        queue.push("many", 1_000, "many")
    queue.push("one", 1_000, "one")
    found = []
    for _ in range(100):
        found.append(queue.pop())
        if found[-1] == "one":
            queue.push("one", 1_000, "one")
    assert 49 <= found.count("one") <= 51


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5000)) | st.none(), max_size=60))
def test_each_tenant_has_its_items_in_order_and_all_are_counted(steps: list[tuple[str, int] | None]) -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    model: dict[str, list[tuple[int, int]]] = {"a": [], "b": [], "c": []}
    for number, step in enumerate(steps):
        if step is not None:
            tenant, size = step
            queue.push(tenant, size, (tenant, number))
            model[tenant].append((number, size))
        elif len(queue):
            tenant, found = queue.pop()
            assert found == model[tenant].pop(0)[0]
        assert len(queue) == sum(map(len, model.values()))
        for tenant, left in model.items():
            assert queue.waiting(tenant) == (len(left), sum(size for _, size in left))
        assert queue.size_bytes == sum(size for left in model.values() for _, size in left)
    assert len(queue.clear()) == sum(map(len, model.values()))
    assert len(queue) == 0
