"""From matchers to series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from common.store import Matcher, MatchOp
from storage_node.caches import ByteLru
from storage_node.patterns import Pattern, compile_pattern
from storage_node.postings import Postings, bitmap_of, snos_of
from storage_node.series_labels import SeriesLabels

CACHE_BYTES = 4 << 20
_ENTRY_BYTES = 300
POSTING_COST_SERIES = 64
"""Reading one posting takes about as long as looking at a label of this many series."""


@dataclass(frozen=True, slots=True)
class _Condition:
    """A matcher as a set of values: those of `pattern`, or with `negated` all others."""

    name: str
    pattern: Pattern | None
    literals: frozenset[str] | None
    regex: str
    negated: bool

    @classmethod
    def of(cls, matcher: Matcher) -> _Condition:
        negated = matcher.op in (MatchOp.NOT_EQUAL, MatchOp.NOT_REGEX)
        if matcher.op in (MatchOp.EQUAL, MatchOp.NOT_EQUAL):
            return cls(matcher.name, None, frozenset([matcher.value]), "", negated)
        pattern = compile_pattern(matcher.value)
        return cls(matcher.name, pattern, pattern.literals, matcher.value, negated)

    @property
    def keeps_absent(self) -> bool:
        if self.literals is not None:
            return ("" in self.literals) != self.negated
        assert self.pattern is not None
        return self.pattern.matches("") != self.negated

    @property
    def rank(self) -> int:
        """Order of evaluation: what narrows cheaply comes first."""
        if self.literals is None:
            return 2
        return 1 if self.keeps_absent or self.negated else 0


class Selector:
    """Evaluates matchers over the series of one partition."""

    def __init__(self, labels: SeriesLabels, postings: Postings) -> None:
        self._labels = labels
        self._postings = postings
        self._regexes: ByteLru[tuple[str, str], tuple[int, NDArray[np.int64]]] = ByteLru(CACHE_BYTES)

    def select(self, matchers: Sequence[Matcher], every: BitMap) -> NDArray[np.uint32]:
        """Numbers of the series in `every` that match all matchers, ascending.

        Raises:
            CallerError: a regular expression is not valid RE2.
        """
        found = every
        for condition in sorted(map(_Condition.of, matchers), key=lambda condition: condition.rank):
            if not found:
                break
            found = self._narrow(condition, found)
        return snos_of(found)

    def _narrow(self, condition: _Condition, found: BitMap) -> BitMap:
        if condition.literals is None and self._is_short(condition, found):
            return self._narrow_by_value(condition, found)
        keeps_absent = condition.keeps_absent
        pairs = self._pairs(condition)
        # Pairs that are kept, or if series without the label are kept, pairs that are refused.
        if condition.negated == keeps_absent:
            listed = pairs
        else:
            listed = np.setdiff1d(self._labels.pairs_of(condition.name), pairs, assume_unique=True)
        if len(listed) * POSTING_COST_SERIES <= max(len(found), POSTING_COST_SERIES):
            union = self._postings.union(listed.tolist())
            return found - union if keeps_absent else found & union
        snos = snos_of(found)
        marks = np.zeros(len(self._labels.pool), dtype=np.bool_)
        marks[self._labels.values.data[listed]] = True
        hits = marks[self._labels.column(condition.name, snos)]
        return bitmap_of(snos[hits != keeps_absent])

    def _is_short(self, condition: _Condition, found: BitMap) -> bool:
        """Whether the series are fewer than the values that the expression has not been tried on."""
        n_seen, _ = self._regexes.get((condition.name, condition.regex)) or (0, None)
        return len(found) < len(self._labels.pairs_of(condition.name, n_seen))

    def _narrow_by_value(self, condition: _Condition, found: BitMap) -> BitMap:
        """Try the expression on the values that these series have, and on no others."""
        assert condition.pattern is not None
        pool, matches = self._labels.pool, condition.pattern.matches
        snos = snos_of(found)
        codes, rows = np.unique(self._labels.column(condition.name, snos), return_inverse=True)
        hits = np.array([matches(pool[code]) != condition.negated for code in codes.tolist()], dtype=np.bool_)
        return bitmap_of(snos[hits[rows]])

    def _pairs(self, condition: _Condition) -> NDArray[np.int64]:
        """Pairs of the name whose value the pattern matches, negated or not."""
        if condition.literals is not None:
            found = [self._labels.pair(condition.name, value) for value in condition.literals]
            return np.array([pair for pair in found if pair is not None], dtype=np.int64)
        assert condition.pattern is not None
        key = condition.name, condition.regex
        n_seen, pairs = self._regexes.get(key) or (0, np.zeros(0, dtype=np.int64))
        n_pairs = self._labels.names.size
        if n_seen < n_pairs:
            pool, matches = self._labels.pool, condition.pattern.matches
            new = self._labels.pairs_of(condition.name, n_seen)
            codes = self._labels.values.data[new].tolist()
            hits = np.fromiter((matches(pool[code]) for code in codes), dtype=np.bool_, count=len(codes))
            pairs = np.concatenate([pairs, new[hits]])
            self._regexes.put(key, (n_pairs, pairs), _ENTRY_BYTES + pairs.nbytes)
        return pairs
