import subprocess
import sys

from common.access import ANYONE, SCOPE_KEY, Principal, Right, principal_of


def test_a_principal_may_what_all_of_its_rights_say() -> None:
    writer = Principal("prometheus", Right.WRITE | Right.READ, ("team-a",))
    assert writer.may(Right.WRITE)
    assert writer.may(Right.READ | Right.WRITE)
    assert not writer.may(Right.ADMIN)
    assert not writer.may(Right.WRITE | Right.NODE)


def test_anyone_may_everything_and_is_bound_to_no_tenant() -> None:
    assert all(ANYONE.may(right) for right in Right)
    assert ANYONE.tenants == ()


def test_a_scope_that_no_gate_has_seen_is_anyones() -> None:
    reader = Principal("grafana", Right.READ)
    assert principal_of({"type": "http"}) is ANYONE
    assert principal_of({"type": "http", SCOPE_KEY: reader}) is reader


def test_importing_it_brings_nothing_else_along() -> None:
    code = "import sys, common.access; print([m for m in sys.modules if m.split('.')[0] in ('numpy', 'fastapi')])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
