"""What a deletion says: which series, and from when to when (`docs/format/log-record.md`, 'Attachments')."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from common.attachments import MAX_BYTES
from common.store import MAX_TIME_MS, MIN_TIME_MS, Matcher, MatchOp


@dataclass(frozen=True, slots=True)
class Tombstone:
    """Deletes what the log has before it of the series that match all matchers, in a closed range of ms.

    forgets: the series themselves go too, with their labels, and what is known of metrics of the tenants that the
      matchers name. The range is all of time then.
    """

    matchers: tuple[Matcher, ...]
    min_time_ms: int
    max_time_ms: int
    forgets: bool = False

    def encode(self) -> bytes:
        """The bytes of the row.

        Raises:
            ValueError: the matchers are too long for one.
        """
        matchers = [[matcher.op.value, matcher.name, matcher.value] for matcher in self.matchers]
        content = {"matchers": matchers, "min_time_ms": self.min_time_ms, "max_time_ms": self.max_time_ms}
        data = orjson.dumps({**content, "forgets": True} if self.forgets else content)
        if len(data) > MAX_BYTES:
            raise ValueError(f"the selector takes {len(data)} bytes; at most {MAX_BYTES} are possible")
        return data

    @classmethod
    def decode(cls, data: bytes) -> Tombstone:
        """Raises ValueError, which says what is wrong."""
        try:
            content = orjson.loads(data)
            rows, low, high = (content[name] for name in ("matchers", "min_time_ms", "max_time_ms"))
            matchers = tuple(Matcher(MatchOp(op), name, value) for op, name, value in rows)
            forgets = content.get("forgets", False)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"a tombstone cannot be read: {error}") from None
        if not matchers or not all(isinstance(text, str) for m in matchers for text in (m.name, m.value)):
            raise ValueError("a tombstone's matchers are none")
        # A bool is an int to Python.
        if type(low) is not int or type(high) is not int or not MIN_TIME_MS <= low <= high <= MAX_TIME_MS:
            raise ValueError("a tombstone's range of time is none")
        if forgets not in (True, False) or (forgets and (low, high) != (MIN_TIME_MS, MAX_TIME_MS)):
            raise ValueError("a tombstone that forgets series is of all of time")
        return cls(matchers, low, high, forgets is True)
