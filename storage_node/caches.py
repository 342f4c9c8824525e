"""A cache bounded by bytes, least recently used out first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ByteLru(Generic[K, V]):
    """Values with their sizes; a value larger than the limit is not kept."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def get(self, key: K) -> V | None:
        found = self._values.get(key)
        if found is None:
            return None
        self._values.move_to_end(key)
        return found[0]

    def put(self, key: K, value: V, size_bytes: int) -> None:
        self.drop(key)
        if size_bytes > self._limit_bytes:
            return
        self._values[key] = value, size_bytes
        self._used_bytes += size_bytes
        while self._used_bytes > self._limit_bytes:
            _, (_, freed) = self._values.popitem(last=False)
            self._used_bytes -= freed

    def drop(self, key: K) -> None:
        found = self._values.pop(key, None)
        if found is not None:
            self._used_bytes -= found[1]

    def drop_if(self, condition: Callable[[K], bool]) -> None:
        for key in [key for key in self._values if condition(key)]:
            self.drop(key)

    def __contains__(self, key: K) -> bool:
        return key in self._values

    def __len__(self) -> int:
        return len(self._values)
