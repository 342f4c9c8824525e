"""A store as its tenants see it: their own series, without the label that says whose they are.

query.service, storage node (pushdown) ─► TenantStore ─► store, every read with a matcher on `__tenant__`

Of one tenant nothing else changes. With several, each series has its tenant in `__tenant_id__`, as in Mimir's
tenant federation: a label of that name that a series has itself becomes `original___tenant_id__`, and matchers on
`__tenant_id__` choose among the tenants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from common.errors import CallerError
from common.labels import LabelTable
from common.store import (
    ANY_NUMBER,
    Extent,
    Matcher,
    MatchOp,
    Metadata,
    Selection,
    SeriesExemplars,
    SeriesStore,
    Usage,
)
from common.tenants import TENANT_LABEL, label_value, tenant_matcher, tenant_named
from common.wire.evaluation import Evaluation
from common.wire.matrices import StepMatrix
from query.promql.regex import InvalidRegex, compile_regex
from query.pushdown.asking import Pushdown

TENANT_ID = "__tenant_id__"
ORIGINAL_TENANT_ID = "original___tenant_id__"


def of_tenants(store: SeriesStore, tenants: Sequence[str] | None) -> SeriesStore:
    """The store confined to these tenants, or itself if there are no tenants (None)."""
    if tenants is None:
        return store
    if isinstance(store, Pushdown):
        return PushdownTenantStore(store, tenants)
    return TenantStore(store, tenants)


class TenantStore:
    """Reads of one tenant, or of several together."""

    def __init__(self, store: SeriesStore, tenants: Sequence[str]) -> None:
        assert tenants, "no tenant is not the same as all"
        self._store = store
        self._tenants = tuple(tenants)
        self._federated = len(self._tenants) > 1

    def wait_caught_up(self, timeout_s: float) -> None:
        """See `SeriesStore`."""
        self._store.wait_caught_up(timeout_s)

    def allow_partial(self) -> Mapping[int, str]:
        """See `SeriesStore`."""
        return self._store.allow_partial()

    def select(
        self,
        matchers: Sequence[Matcher],
        min_time_ms: int,
        max_time_ms: int,
        max_samples: int,
        max_series: int = ANY_NUMBER,
    ) -> Selection:
        """See `SeriesStore`."""
        mine = self._confined(matchers)
        if mine is None:
            nothing = np.zeros(0, dtype=np.int64)
            return Selection(LabelTable.of(()), np.zeros(1, dtype=np.int64), nothing, nothing.view(np.float64))
        found = self._store.select(mine, min_time_ms, max_time_ms, max_samples, max_series)
        return replace(found, labels=self._visible(found.labels))

    def series(
        self,
        matcher_sets: Sequence[Sequence[Matcher]],
        min_time_ms: int,
        max_time_ms: int,
        max_series: int = ANY_NUMBER,
    ) -> LabelTable:
        """See `SeriesStore`."""
        mine = self._all_confined(matcher_sets)
        if not mine:
            return LabelTable.of(())
        return self._visible(self._store.series(mine, min_time_ms, max_time_ms, max_series))

    def label_names(
        self, matcher_sets: Sequence[Sequence[Matcher]], min_time_ms: int, max_time_ms: int
    ) -> list[str]:
        """See `SeriesStore`."""
        mine = self._all_confined(matcher_sets)
        names = set(self._store.label_names(mine, min_time_ms, max_time_ms)) if mine else set()
        names.discard(TENANT_LABEL)
        if self._federated and names:
            if TENANT_ID in names:
                names.add(ORIGINAL_TENANT_ID)
            names.add(TENANT_ID)
        return sorted(names)

    def label_values(
        self, name: str, matcher_sets: Sequence[Sequence[Matcher]], min_time_ms: int, max_time_ms: int
    ) -> list[str]:
        """See `SeriesStore`; of `__tenant_id__` the tenants that the matchers leave, with or without series."""
        mine = self._all_confined(matcher_sets)
        if name == TENANT_LABEL or not mine:
            return []
        if self._federated and name == TENANT_ID:
            kept = [self._left(matchers)[0] for matchers in matcher_sets or [[]]]
            return sorted({tenant for tenants in kept for tenant in tenants})
        if self._federated and name == ORIGINAL_TENANT_ID:
            name = TENANT_ID
        return self._store.label_values(name, mine, min_time_ms, max_time_ms)

    def metadata(self, metric: str | None, tenants: Sequence[str] | None = None) -> dict[str, list[Metadata]]:
        """See `SeriesStore`; of these tenants, whatever is asked for."""
        return self._store.metadata(metric, self._tenants)

    def exemplars(
        self, matcher_sets: Sequence[Sequence[Matcher]], min_time_ms: int, max_time_ms: int
    ) -> list[SeriesExemplars]:
        """See `SeriesStore`."""
        mine = self._all_confined(matcher_sets)
        found = self._store.exemplars(mine, min_time_ms, max_time_ms) if mine else []
        return [replace(one, labels=self._visible_labels(one.labels)) for one in found]

    def extent(self, matcher_sets: Sequence[Sequence[Matcher]] = ()) -> Extent:
        """See `SeriesStore`."""
        mine = self._all_confined(matcher_sets)
        return self._store.extent(mine) if mine else Extent()

    def births(
        self, matcher_sets: Sequence[Sequence[Matcher]], min_time_ms: int, max_time_ms: int
    ) -> dict[int, int]:
        """See `SeriesStore`."""
        mine = self._all_confined(matcher_sets)
        return self._store.births(mine, min_time_ms, max_time_ms) if mine else {}

    def usage(self, *, with_samples: bool) -> Usage:
        """See `SeriesStore`; of these tenants."""
        found = self._store.usage(with_samples=with_samples).tenants
        return Usage({tenant: found[tenant] for tenant in self._tenants if tenant in found})

    # -- matchers -----------------------------------------------------------------------------------------------

    def _all_confined(self, matcher_sets: Sequence[Sequence[Matcher]]) -> list[tuple[Matcher, ...]]:
        """The sets that can match something; none at all if none can."""
        found = [self._confined(matchers) for matchers in matcher_sets or [()]]
        return [matchers for matchers in found if matchers is not None]

    def _confined(self, matchers: Sequence[Matcher]) -> tuple[Matcher, ...] | None:
        """The matchers, confined to the tenants; None if they match nothing."""
        tenants, others = self._left(matchers)
        return (tenant_matcher(tenants), *others) if tenants else None

    def _left(self, matchers: Sequence[Matcher]) -> tuple[tuple[str, ...], list[Matcher]]:
        """Tenants that the matchers leave, and the matchers on other labels."""
        tenants, others = self._tenants, []
        for matcher in matchers:
            if matcher.name == TENANT_LABEL:
                # To a client there is no such label.
                tenants = tenants if _matches(matcher, "") else ()
            elif self._federated and matcher.name == TENANT_ID:
                tenants = tuple(tenant for tenant in tenants if _matches(matcher, tenant))
            elif self._federated and matcher.name == ORIGINAL_TENANT_ID:
                others.append(matcher._replace(name=TENANT_ID))
            else:
                others.append(matcher)
        return tenants, others

    # -- labels -------------------------------------------------------------------------------------------------

    def _visible(self, table: LabelTable) -> LabelTable:
        names = list(table.names)
        codes = table.codes
        if not self._federated:
            if TENANT_LABEL not in names:
                return table
            at = names.index(TENANT_LABEL)
            return LabelTable(table.pool, (*names[:at], *names[at + 1 :]), np.delete(codes, at, axis=0))
        values = table.column(TENANT_LABEL)
        default = np.int32(table.pool.intern(tenant_named("")))
        kept = [i for i, name in enumerate(names) if name != TENANT_LABEL]
        names = [ORIGINAL_TENANT_ID if names[i] == TENANT_ID else names[i] for i in kept] + [TENANT_ID]
        codes = np.concatenate((codes[kept], np.where(values == 0, default, values)[None, :]))
        order = sorted(range(len(names)), key=names.__getitem__)
        return LabelTable(table.pool, tuple(names[i] for i in order), np.ascontiguousarray(codes[order]))

    def _visible_labels(self, labels: Mapping[str, str]) -> dict[str, str]:
        found = dict(labels)
        tenant = tenant_named(found.pop(TENANT_LABEL, ""))
        if self._federated:
            if TENANT_ID in found:
                found[ORIGINAL_TENANT_ID] = found[TENANT_ID]
            found[TENANT_ID] = tenant
        return found


class PushdownTenantStore(TenantStore):
    """The same over a store whose nodes evaluate expressions; they confine themselves what they read for one."""

    def evaluate(
        self,
        evaluation: Evaluation,
        n_columns: int,
        max_samples: int,
        max_series: int,
        check: Callable[[], None],
    ) -> list[StepMatrix]:
        """See `query.pushdown.asking.Pushdown`."""
        assert isinstance(self._store, Pushdown)
        return self._store.evaluate(
            replace(evaluation, tenants=self._tenants), n_columns, max_samples, max_series, check
        )


def deleting(matchers: Sequence[Matcher], tenant: str) -> tuple[Matcher, ...] | None:
    """The matchers of a deletion, confined to one tenant; None if they match nothing."""
    for matcher in matchers:
        if matcher.name == TENANT_LABEL and not _matches(matcher, ""):
            return None
    others = [matcher for matcher in matchers if matcher.name != TENANT_LABEL]
    return (Matcher(MatchOp.EQUAL, TENANT_LABEL, label_value(tenant)), *others)


def _matches(matcher: Matcher, value: str) -> bool:
    if matcher.op in (MatchOp.EQUAL, MatchOp.NOT_EQUAL):
        return (matcher.value == value) == (matcher.op is MatchOp.EQUAL)
    try:
        matched = compile_regex(matcher.value).fullmatch(value) is not None
    except InvalidRegex as error:
        raise CallerError(str(error)) from None
    return matched == (matcher.op is MatchOp.REGEX)
