"""The data folder's lock."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from common.errors import StartupError
from tabor.folder import DataFolder


def test_a_full_disk_is_told_in_one_line_and_the_lock_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(StartupError, match=f"{tmp_path}: No space left on device"):
            DataFolder(tmp_path)
    DataFolder(tmp_path).close()
