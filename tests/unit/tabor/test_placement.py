"""`tabor placement simulate`: what it prints, and what it refuses."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from common.errors import CallerError
from tabor.cli import cli


def simulate(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    cli.main(["placement", "simulate", *arguments], prog_name="tabor", standalone_mode=False)
    return capsys.readouterr().out


def test_it_shows_a_bar_a_node_and_on_how_many_nodes_samples_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = simulate(capsys, "--nodes", "5", "--replicas", "2", "--partitions", "64", "--samples", "1000")
    lines = out.splitlines()
    assert lines[0] == "Samples on each node: 1,000 samples, 2 replicas, 64 partitions, 5 nodes"
    assert [line.split()[0] for line in lines[1:6]] == ["0", "1", "2", "3", "4"]
    assert all("█" in line for line in lines[1:6])
    assert "mean 400.0" in lines[6]
    assert "standard deviation" in lines[6]
    assert lines[-1].split() == ["2", "1,000", "100.00", "%"]
    assert "Displacement" not in out


def test_nodes_that_leave_and_join_are_shown_with_what_they_move(capsys: pytest.CaptureFixture[str]) -> None:
    out = simulate(capsys, "--nodes", "19", "--partitions", "1024", "--remove", "7", "--remove", "2", "--add", "2")
    table = out[out.index("Displacement") :].splitlines()
    rows = [line.split() for line in table[2:6]]
    assert [row[:3] for row in rows] == [
        ["node", "7", "leaves"],
        ["node", "2", "leaves"],
        ["node", "19", "joins"],
        ["node", "20", "joins"],
    ]
    for moved, ideal, ratio, bound in (row[3:] for row in rows):
        moved_count, ideal_count = (int(text.replace(",", "")) for text in (moved, ideal))
        assert ratio == f"{moved_count / ideal_count:.3f}"
        assert ideal_count * 0.95 < moved_count < int(bound.replace(",", ""))
    ordinals = [line.split()[0] for line in table if "█" in line]
    assert ordinals == [str(i) for i in range(21) if i not in (2, 7)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nodes", "2"], "--replicas 3 needs at least 3 nodes, and --nodes is 2"),
        (["--nodes", "5", "--remove", "5"], "--remove 5: there is no such node; --nodes 5 are 0 to 4"),
        (["--nodes", "5", "--remove", "1", "--remove", "1"], "--remove 1 is given twice"),
        (["--nodes", "4", "--remove", "1", "--remove", "2"], "leaves 2 nodes, too few for --replicas 3"),
        (["--nodes", "1", "--replicas", "1", "--remove", "0"], "leaves 0 nodes, too few for --replicas 1"),
    ],
)
def test_nonsense_is_refused_with_the_flag_and_the_reason(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(CallerError) as refused:
        simulate(capsys, *arguments)
    assert message in str(refused.value)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        ([], "--nodes"),
        (["--nodes", "0"], "--nodes"),
        (["--nodes", "5", "--replicas", "0"], "--replicas"),
        (["--nodes", "5", "--partitions", "65537"], "--partitions"),
        (["--nodes", "5", "--remove", "-1"], "--remove"),
        (["--nodes", "5", "--add", "-1"], "--add"),
        (["--nodes", "5", "--samples", "0"], "--samples"),
    ],
)
def test_values_out_of_range_are_refused_with_the_flag(
    capsys: pytest.CaptureFixture[str], arguments: list[str], flag: str
) -> None:
    with pytest.raises(click.UsageError) as refused:
        simulate(capsys, *arguments)
    assert flag in refused.value.format_message()


def test_help_has_examples_and_says_what_the_columns_mean(capsys: pytest.CaptureFixture[str]) -> None:
    out = " ".join(simulate(capsys, "--help").split())
    for part in ("--remove 7 --add 1", "'ideal' is", "'bound' is", "Nothing is read or changed"):
        assert part in out


def test_the_command_line_starts_without_what_only_the_simulation_needs() -> None:
    code = "import sys, tabor.cli; print([m for m in ('tabor.placement', 'common.placement') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
