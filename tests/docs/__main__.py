"""`python -m tests.docs` lists the blocks of the docs that no test runs, and why; with pages it runs those."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.docs.pages import PageError, blocks_of, pages
from tests.docs.world import Failed, World
from tests.kafka_broker import Broker, obtain_broker


def main(named: list[str]) -> int:
    """Returns the exit status."""
    try:
        if named:
            for page in named:
                _run(page)
        else:
            _list()
    except (PageError, Failed) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _list() -> None:
    blocks = [block for page in pages() for block in blocks_of(page)]
    for block in blocks:
        if block.not_run:
            print(f"{block.where}: {' '.join(block.not_run.split())}")
    n_run = sum(block.runs for block in blocks)
    print(f"{n_run} blocks are run, {sum(bool(block.not_run) for block in blocks)} are not")


def _run(page: str) -> None:
    brokers: list[Broker] = []

    def bootstrap() -> str:
        if not brokers:
            brokers.append(obtain_broker())
        return brokers[0].bootstrap

    try:
        with tempfile.TemporaryDirectory() as folder, World(Path(folder), bootstrap) as world:
            for block in blocks_of(page):
                if block.runs:
                    print(f"{block.where} …", flush=True)
                    world.run(block)
    finally:
        for broker in brokers:
            broker.remove()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
