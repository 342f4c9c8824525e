"""The benches of the write path, in small."""

from __future__ import annotations

import pytest

from bench import bench_growth, bench_otlp, bench_tenants
from bench.bench_ingest import main


def test_the_bench_runs_in_small_and_sends_what_it_should(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["bench_ingest", "small", "--small"])
    main()
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in printed[:2]] == [["load", "server"], ["small", "tabor"]]
    assert printed[2] == "checksum eba984b2b0746231"


def test_the_bench_of_otlp_runs_in_small_and_sends_what_it_should(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["bench_otlp", "--small"])
    bench_otlp.main()
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[:3]] == ["protocol", "otlp", "remote"]
    assert printed[3] == "checksum 51d8b9e5fa6e3e89"


def test_the_bench_of_tenants_runs_in_small_and_sends_what_it_should(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["bench_tenants", "--small"])
    bench_tenants.main()
    printed = capsys.readouterr().out.splitlines()
    names = [" ".join(line.split()[:2]) for line in printed]
    kinds = ("alone", "flooded", "ratio")
    assert names[1:7] == [f"{calls} {kind}" for calls in ("writes", "queries") for kind in kinds]
    assert printed[7].startswith("checksum ")


def test_the_bench_of_growth_runs_in_small(capsys: pytest.CaptureFixture[str]) -> None:
    bench_growth.run(["tabor"], 0.002)
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:2] for line in printed] == [["server", "series"], ["tabor", "20"], ["tabor", "2,000"]]
    assert all(float(figure) > 0 for line in printed[1:] for figure in line[2:])
