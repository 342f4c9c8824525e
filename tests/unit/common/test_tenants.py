"""Names of tenants, whose a request is, and the matcher that confines it."""

from __future__ import annotations

from typing import Any

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st

from common.access import ANYONE, SCOPE_KEY, Principal, Right
from common.labels import canonical_labels, with_label
from common.store import Matcher, MatchOp
from common.tenants import (
    MAX_TENANT_CHARACTERS,
    TENANT_LABEL,
    Tenancy,
    TenantRefused,
    other_tenants_matcher,
    parse_tenants,
    tenant_matcher,
    tenant_of,
    tenant_pair,
    tenants_of,
    why_no_tenant,
)

NAMES = st.text("abcXYZ019!-_.*'()", min_size=1, max_size=12).filter(lambda name: why_no_tenant(name) is None)


def scope(*values: str, principal: Principal = ANYONE) -> dict[str, Any]:
    headers = [(b"x-scope-orgid", value.encode("latin-1")) for value in values]
    return {"headers": [(b"host", b"tabor"), *headers], SCOPE_KEY: principal}


def bound(*tenants: str) -> Principal:
    return Principal("token", Right.READ, tenants)


def test_names_are_those_that_mimir_takes() -> None:
    good = ["a", "team-7", "!-_.*'()", "a" * MAX_TENANT_CHARACTERS, "...", "default"]
    assert [why_no_tenant(name) for name in good] == [None] * len(good)
    bad = ["", ".", "..", "a/b", "a b", "ä", "a\n", "a|b", "a\\b", "a" * (MAX_TENANT_CHARACTERS + 1)]
    assert all(why_no_tenant(name) for name in bad)


def test_without_the_header_the_tenant_is_default_or_the_request_is_refused() -> None:
    assert tenants_of(scope(), Tenancy.OPTIONAL) == ("default",)
    with pytest.raises(TenantRefused, match="X-Scope-OrgID is missing") as refused:
        tenants_of(scope(), Tenancy.REQUIRED)
    assert refused.value.status == 401


def test_with_tenants_switched_off_the_header_is_not_looked_at_but_a_token_of_a_tenant_is_refused() -> None:
    assert tenants_of(scope("../../etc"), Tenancy.OFF) is None
    assert tenant_of(scope("a|b"), Tenancy.OFF) == "default"
    with pytest.raises(TenantRefused, match="--tenancy") as refused:
        tenants_of(scope(principal=bound("a")), Tenancy.OFF)
    assert refused.value.status == 403


def test_a_token_decides_and_the_header_chooses_among_its_tenants() -> None:
    assert tenants_of(scope(principal=bound("a")), Tenancy.REQUIRED) == ("a",)
    assert tenants_of(scope("b", principal=bound("a", "b")), Tenancy.OPTIONAL) == ("b",)
    assert tenants_of(scope("b|a|b", principal=bound("a", "b", "c")), Tenancy.OPTIONAL) == ("a", "b")
    for named in ("c", "a|c", "default"):
        with pytest.raises(TenantRefused, match="not for") as refused:
            tenants_of(scope(named, principal=bound("a", "b")), Tenancy.OPTIONAL)
        assert refused.value.status == 403
    with pytest.raises(TenantRefused, match="2 tenants: say for which"):
        tenants_of(scope(principal=bound("a", "b")), Tenancy.OPTIONAL)


def test_writes_are_for_one_tenant_and_headers_come_once() -> None:
    assert tenant_of(scope("a"), Tenancy.OPTIONAL) == "a"
    for values, reason in ((("a|b",), "several tenants"), (("a", "a"), "occurs twice"), (("",), "is empty")):
        with pytest.raises(TenantRefused, match=reason) as refused:
            tenant_of(scope(*values), Tenancy.OPTIONAL)
        assert refused.value.status == 400
    with pytest.raises(TenantRefused, match="at most 100"):
        parse_tenants("|".join(f"t{i}" for i in range(101)))


@given(st.sets(NAMES | st.just("default"), min_size=1, max_size=5), NAMES | st.just(""))
def test_the_matcher_of_tenants_matches_their_label_and_no_other(tenants: set[str], label: str) -> None:
    mine = (label or "default") in tenants
    matcher, others = tenant_matcher(sorted(tenants)), other_tenants_matcher(tenants)
    assert matches(matcher, label) == mine
    assert matches(others, label) == (not mine)
    assert matches(other_tenants_matcher(()), label)


def matches(matcher: Matcher, value: str) -> bool:
    if matcher.op is MatchOp.EQUAL:
        return value == matcher.value
    return (re2.fullmatch(matcher.value, value) is not None) == (matcher.op is MatchOp.REGEX)


@given(st.dictionaries(st.text(min_size=1), st.text(min_size=1, max_size=200), max_size=6), NAMES)
def test_the_label_of_a_tenant_lies_where_canonical_labels_have_it(labels: dict[str, str], tenant: str) -> None:
    labels.pop(TENANT_LABEL, None)
    got = with_label(canonical_labels(labels), TENANT_LABEL.encode(), tenant_pair(tenant))
    assert got == canonical_labels({**labels, TENANT_LABEL: tenant})
