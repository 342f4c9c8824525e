"""The bench of the storage node, in small."""

from __future__ import annotations

import pytest

from bench.bench_storage import main


def test_the_bench_runs_in_small_and_computes_what_it_should(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--small", "late", "merge", "select"])
    printed = capsys.readouterr().out
    assert "[150000]" in printed
    assert "select everything: " in printed
    assert "496 series, 49600 samples" in printed
