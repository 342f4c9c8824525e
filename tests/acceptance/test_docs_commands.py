"""Every command of the docs does what it says: page by page, in a folder of its own, with real servers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from tests.docs.pages import Block, PageError, blocks_of, pages
from tests.docs.world import Failed, World
from tests.kafka_broker import Broker

pytestmark = pytest.mark.acceptance
_KEYS_OF_PROMETHEUS = {"global", "scrape_configs", "remote_write", "remote_read", "rule_files", "alerting"}


def blocks(page: str) -> list[Block]:
    try:
        return blocks_of(page)
    except PageError as error:
        pytest.fail(f"{error} (docs/testing.md, 'Commands in the docs')", pytrace=False)


# A page is many commands and servers, and has to pass on a busy machine too.
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", pages())
def test_the_commands_of_a_page_run(page: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    def bootstrap() -> str:
        broker: Broker = request.getfixturevalue("kafka_broker")
        return broker.bootstrap

    with World(tmp_path / "world", bootstrap) as world:
        for block in blocks(page):
            failure = _failure(world, block) if block.runs else None
            if failure is not None:
                pytest.fail(failure, pytrace=False)


def _failure(world: World, block: Block) -> str | None:
    try:
        world.run(block)
    except Failed as error:
        return str(error)
    return None


def configurations() -> list[Block]:
    """The configurations of Prometheus that the docs show."""
    found = []
    for page in pages():
        for block in blocks(page):
            content = yaml.safe_load(block.text) if block.language == "yaml" and not block.not_run else None
            if isinstance(content, dict) and content.keys() & _KEYS_OF_PROMETHEUS:
                found.append(block)
    return found


def test_prometheus_takes_the_configurations_of_the_docs(tmp_path: Path) -> None:
    shown = configurations()
    assert shown
    for block in shown:
        path = tmp_path / "prometheus.yml"
        path.write_text(block.text)
        check = ["promtool", "check", "config", "--syntax-only", str(path)]
        result = subprocess.run(check, capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, block.where + result.stdout + result.stderr


def test_a_block_that_is_not_run_says_why() -> None:
    for page in pages():
        for block in blocks(page):
            assert not block.not_run or len(block.not_run) >= 10, f"{block.where}: say why it is not run"
