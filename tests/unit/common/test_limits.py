"""The file of tenants' limits: what it says, what is wrong in it, and that it is read again."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import StartupError
from common.limits import LOOK_EVERY_S, NO_LIMITS, Limits, TenantLimits, read_limits
from common.store import Matcher, MatchOp
from common.tenants import TENANT_LABEL

TEXT = """
[limits]
samples_per_s = 1000
retention = "30d"

[tenants.team-a]
samples_per_s = 5000
max_active_series = 7

[tenants."b.c"]
retention = "1d12h"
"""
DAY_MS = 86_400_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "limits.toml"
    file.write_text(TEXT)
    return file


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def change(file: Path, text: str) -> None:
    """Replace a file, as editors do, so that it is another one whatever the clock's grain."""
    other = file.with_suffix(".new")
    other.write_text(text)
    other.replace(file)


def test_a_tenant_has_the_limits_of_all_but_for_its_own(file: Path) -> None:
    limits = Limits(file)
    assert limits.of("x") == TenantLimits(samples_per_s=1000, retention_ms=30 * DAY_MS)
    assert limits.of("team-a") == TenantLimits(samples_per_s=5000, max_active_series=7, retention_ms=30 * DAY_MS)
    assert limits.of("b.c").retention_ms == 36 * 3_600_000
    assert limits.of("x").burst == 10_000
    assert Limits().of("team-a") is NO_LIMITS


def test_retention_is_said_of_each_tenant_in_the_file_and_of_all_others(file: Path) -> None:
    found = dict(read_limits(file).retentions())
    assert found == {
        Matcher(MatchOp.NOT_REGEX, TENANT_LABEL, r"b\.c|team\-a"): 30 * DAY_MS,
        Matcher(MatchOp.EQUAL, TENANT_LABEL, "team-a"): 30 * DAY_MS,
        Matcher(MatchOp.EQUAL, TENANT_LABEL, "b.c"): 36 * 3_600_000,
    }


def test_a_changed_file_is_read_again_and_a_broken_one_changes_nothing(file: Path) -> None:
    clock = Clock()
    limits = Limits(file, clock)
    change(file, TEXT.replace("1000", "2000"))
    assert limits.of("x").samples_per_s == 1000
    for text, want in ((None, 2000), ("[limits", 2000), ("[limits]\nsamples_per_s = 3\n", 3)):
        if text is not None:
            change(file, text)
        clock.now_s += LOOK_EVERY_S
        assert limits.of("x").samples_per_s == want
    file.unlink()
    clock.now_s += LOOK_EVERY_S
    assert limits.of("x").samples_per_s == 3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[limits]\nsamples = 3", "unknown limit 'samples'; known are burst_samples"),
        ("[limits]\nsamples_per_s = 0", "samples_per_s is 0; it is a whole number above 0"),
        ("[limits]\nmax_active_series = true", "max_active_series is True"),
        ("[limits]\nmax_active_series = 1.5", "a whole number"),
        ('[limits]\nretention = "3"', 'retention is not a duration such as "90d"'),
        ("[limits]\nretention = 3", "retention is not a duration"),
        ("limits = 3", r"\[limits\] is not a table"),
        ("tenants = 3", "'tenants' is not a table"),
        ('[tenants."a/b"]', "'a/b' is not the name of a tenant"),
        ("[tenants.a]\nx = 1", r"\[tenants.a\] has the unknown limit 'x'"),
        ("[tenant.a]", "unknown table 'tenant'"),
        ("\x00", "is not TOML"),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_nothing_starts(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "limits.toml"
    file.write_text(text)
    with pytest.raises(StartupError, match=reason) as error:
        Limits(file)
    assert str(file) in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"cannot read .*none.toml: No such file"):
        Limits(tmp_path / "none.toml")
