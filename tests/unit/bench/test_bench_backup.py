"""The bench of backups, in small."""

from __future__ import annotations

from bench.bench_backup import HOUR_STEPS, bench


def test_what_is_restored_is_what_was_backed_up() -> None:
    backed_up, restored = bench(20, HOUR_STEPS)
    assert backed_up == restored > 0
