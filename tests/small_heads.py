"""`python -m tests.small_heads run …` is `tabor run …` with small heads: the disk is written all the time."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from storage_node.config import NodeConfig
from tabor import cli, configs

_node = configs.node


def _small(options: Mapping[str, Any], *, name: str) -> NodeConfig:
    return dataclasses.replace(
        _node(options, name=name), head_samples=50_000, checkpoint_age_s=1.0, flush_age_s=2.0, retry_s=0.5
    )


if __name__ == "__main__":
    configs.node = _small
    cli.main()
