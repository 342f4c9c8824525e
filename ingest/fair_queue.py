"""A queue in which tenants have equal shares of what is taken out, by size, whatever each has put in.

Start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM '96): an item starts, in virtual time, when its tenant's item
before it has ended, or now if the tenant had nothing waiting; the one that starts first comes first.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")

ITEM_COST = 2000
"""What any item costs besides its size, in bytes."""
_MOST_REMEMBERED = 4096


class FairQueue(Generic[T]):
    """Items by tenant. Whoever shares it between threads guards it."""

    def __init__(self) -> None:
        self._items: dict[str, deque[tuple[int, T]]] = {}
        self._bytes: dict[str, int] = {}
        # (start of its first item, order of arrival, tenant) of each tenant that has items.
        self._turns: list[tuple[int, int, str]] = []
        self._ends: dict[str, int] = {}
        self._now = 0
        self._n_pushed = 0
        self._n_items = 0
        self.size_bytes = 0

    def __len__(self) -> int:
        return self._n_items

    def waiting(self, tenant: str) -> tuple[int, int]:
        """Items of a tenant, and their bytes."""
        return len(self._items.get(tenant, ())), self._bytes.get(tenant, 0)

    def only_tenant(self) -> str | None:
        """The tenant whose all items are, if there is just one."""
        return next(iter(self._items)) if len(self._items) == 1 else None

    def push(self, tenant: str, size_bytes: int, item: T) -> None:
        """Put an item behind those of its tenant."""
        items = self._items.get(tenant)
        if items is None:
            items = self._items[tenant] = deque()
            self._bytes[tenant] = 0
            self._n_pushed += 1
            heapq.heappush(self._turns, (max(self._ends.get(tenant, 0), self._now), self._n_pushed, tenant))
        items.append((size_bytes, item))
        self._bytes[tenant] += size_bytes
        self._n_items += 1
        self.size_bytes += size_bytes

    def pop(self) -> T:
        """Take out the item whose turn it is; there is one."""
        start, order, tenant = self._turns[0]
        items = self._items[tenant]
        size_bytes, item = items.popleft()
        self._now = start
        end = start + size_bytes + ITEM_COST
        if items:
            self._bytes[tenant] -= size_bytes
            heapq.heapreplace(self._turns, (end, order, tenant))
        else:
            heapq.heappop(self._turns)
            del self._items[tenant], self._bytes[tenant]
            self._ends[tenant] = end
            if len(self._ends) > _MOST_REMEMBERED:
                self._ends = {one: at for one, at in self._ends.items() if at > start}
        self._n_items -= 1
        self.size_bytes -= size_bytes
        return item

    def clear(self) -> list[T]:
        """Take out all items."""
        left = [item for items in self._items.values() for _, item in items]
        self._items.clear()
        self._bytes.clear()
        self._turns.clear()
        self._n_items = self.size_bytes = 0
        return left
