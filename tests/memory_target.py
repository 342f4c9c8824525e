"""A place for backups in memory, which may fail, for tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from storage_node.backup.errors import TargetError
from storage_node.backup.target import Entry


class MemoryTarget:
    """Objects by name. now_s: its clock. failure: what calls fail with. before: called ahead of every call."""

    where = "memory"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.times_s: dict[str, float] = {}
        self.now_s = 0.0
        self.failure: str | None = None
        self.before: Callable[[str, str], object] = lambda what, name: None
        self.puts: list[str] = []
        self._lock = threading.Lock()

    def put(self, name: str, data: bytes) -> None:
        self._called("put", name)
        with self._lock:
            self.objects[name] = data
            self.times_s[name] = self.now_s
            self.puts.append(name)

    def get(self, name: str) -> bytes | None:
        self._called("get", name)
        return self.objects.get(name)

    def entries(self, prefix: str) -> Iterator[Entry]:
        self._called("entries", prefix)
        with self._lock:
            found = [name for name in self.objects if name.startswith(f"{prefix}/")]
            entries = [Entry(name, len(self.objects[name]), self.times_s[name]) for name in found]
        yield from entries

    def delete(self, name: str) -> None:
        self._called("delete", name)
        with self._lock:
            self.objects.pop(name, None)

    def _called(self, what: str, name: str) -> None:
        self.before(what, name)
        if self.failure is not None:
            raise TargetError(self.failure)
