"""The bench in tiny: every figure is there, and Tabor's answers are Prometheus'."""

from __future__ import annotations

import pytest

from bench import bench_start, report
from bench.__main__ import run
from bench.measure import Effort
from bench.servers import SERVERS

TINY = Effort(connections=2, repeats=2, seconds_per_query=0.01, idle_s=0.2)


@pytest.mark.acceptance
def test_the_bench_runs_in_tiny_and_all_answers_agree(capsys: pytest.CaptureFixture[str]) -> None:
    result = run(["devops"], 0.01, list(SERVERS), TINY)
    assert result.wrong == []
    ours = next(one for one in result.measured if one.server == report.US)
    for name in (
        "samples_per_s",
        "cpu_s_per_million",
        "peak_rss_mib",
        "settled_rss_bytes_per_series",
        "view_bytes_per_sample",
        "log_bytes_per_sample",
        "written_per_byte_kept",
        "ready_after_kill_s",
        "replay_samples_per_s",
    ):
        assert ours.figures[name] > 0, name
    assert ours.figures["probe_after_kill"] == 8, "SIGKILL has cost samples"
    assert {one.load for one in result.asked} == {"devops"}
    assert result.text in capsys.readouterr().out + "\n"


def test_the_bench_of_starts_runs() -> None:
    assert [0 < seconds < 60 for seconds in bench_start.bench(1)] == [True]
