"""The bench of pushdown, in small."""

from __future__ import annotations

import pytest

from bench.bench_pushdown import QUERIES, SMALL, bench


def test_answers_are_the_same_and_fewer_bytes_travel(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(bench(SMALL)) == 16
    lines = capsys.readouterr().out.splitlines()[1:]
    assert len(lines) == len(QUERIES)
    for line in lines:
        share = float(line.split("%")[0].split()[-1])
        assert 0.0 < share < 60.0, line
