"""`tabor tenant check`."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from common.errors import CallerError
from tabor.cli.tenants import tenant


def test_a_file_of_limits_is_shown_by_tenant(tmp_path: Path) -> None:
    file = tmp_path / "limits.toml"
    file.write_text(
        '[limits]\nretention = "90d"\n[tenants.team-a]\nsamples_per_s = 50_000\n[tenants.b]\nretention = "1d"\n'
    )
    shown = CliRunner().invoke(tenant, ["check", str(file)])
    assert shown.stdout.splitlines() == [
        "b         retention 1d",
        "team-a    samples_per_s 50,000, retention 90d",
        "(others)  retention 90d",
    ]


def test_what_is_wrong_in_a_file_of_limits_is_named(tmp_path: Path) -> None:
    file = tmp_path / "limits.toml"
    file.write_text("[tenants.team-a]\nsamples_per_sec = 5\n")
    with pytest.raises(
        CallerError, match=r"limits.toml: \[tenants.team-a\] has the unknown limit 'samples_per_sec'"
    ):
        CliRunner().invoke(tenant, ["check", str(file)], catch_exceptions=False)
