"""The series index as plain dicts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from common.labels import METRIC_NAME
from common.store import Matcher, MatchOp


def matches(matcher: Matcher, labels: dict[str, str]) -> bool:
    """Whether a label set satisfies a matcher; regexes must mean the same to `re` as to RE2."""
    value = labels.get(matcher.name, "")
    if matcher.op in (MatchOp.EQUAL, MatchOp.NOT_EQUAL):
        hit = value == matcher.value
    else:
        hit = re.fullmatch(f"(?s:{matcher.value})", value) is not None
    return hit != (matcher.op in (MatchOp.NOT_EQUAL, MatchOp.NOT_REGEX))


class IndexOracle:
    """Series as a list of label sets; None is an orphan."""

    def __init__(self) -> None:
        self.series: list[dict[str, str] | None] = []
        self.by_id: dict[bytes, int] = {}

    def register(self, series: Sequence[tuple[bytes, dict[str, str]]]) -> list[int]:
        for series_id, labels in series:
            if series_id not in self.by_id:
                self.by_id[series_id] = len(self.series)
                self.series.append(labels)
        return [self.by_id[series_id] for series_id, _ in series]

    def adopt(self, sno: int, series_id: bytes, labels: dict[str, str]) -> None:
        assert self.series[sno] is None
        assert series_id not in self.by_id
        self.series[sno] = labels
        self.by_id[series_id] = sno

    def select(self, matchers: Sequence[Matcher]) -> list[int]:
        return [
            sno
            for sno, labels in enumerate(self.series)
            if labels is not None and all(matches(matcher, labels) for matcher in matchers)
        ]

    def metric_order(self, snos: Sequence[int]) -> list[int]:
        def key(i: int) -> tuple[str, int]:
            return (self.series[snos[i]] or {}).get(METRIC_NAME, ""), snos[i]

        return sorted(range(len(snos)), key=key)


class DictDisk:
    """An `IndexDisk` in a dict, with batches that take effect at once or not at all."""

    def __init__(self) -> None:
        self.data: dict[bytes, bytes] = {}
        self.batch: dict[bytes, bytes] = {}
        self.reads = 0

    def put(self, key: bytes, value: bytes) -> None:
        self.batch[key] = value

    def write(self) -> None:
        self.data.update(self.batch)
        self.batch = {}

    def get(self, key: bytes) -> bytes | None:
        self.reads += 1
        return self.data.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.data.get(key) for key in keys]

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        return ((key, self.data[key]) for key in sorted(self.data) if key.startswith(prefix))
