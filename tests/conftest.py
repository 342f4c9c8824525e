"""Fixtures that every kind of test may use."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.kafka_broker import Broker, JavaBroker, NoBroker, obtain_broker


@pytest.fixture(scope="session", autouse=True)
def compiled_kernels() -> None:
    """No test pays for the machine's first compilation, which takes most of a minute."""
    subprocess.run([sys.executable, "-m", "tabor.kernels"], check=True)


@pytest.fixture(scope="session")
def kafka_broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """A running broker for the whole session; tests use topics of their own and never stop it."""
    try:
        broker = obtain_broker()
    except NoBroker as error:
        pytest.fail(str(error), pytrace=False)
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(f"\nKafka: {broker.description} at {broker.bootstrap}")
    yield broker
    broker.remove()


@pytest.fixture
def own_kafka_broker() -> Iterator[JavaBroker]:
    """A running broker for one test, which may stop, kill and start it."""
    try:
        broker = JavaBroker()
        broker.start()
    except NoBroker as error:
        pytest.fail(str(error), pytrace=False)
    yield broker
    broker.remove()
