"""What a process shows of its options."""

from __future__ import annotations

import click
import pytest

from tabor.settings import effective


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:hunter2@collector:4318", "http://***@collector:4318"),
        ("http://collector:4318?token=hunter2", "http://collector:4318?***"),
        ("kafka://h:1/p?sasl.password=hunter2", "kafka://h:1/p?sasl.password=***"),
        ("http://collector:4318", "http://collector:4318"),
    ],
)
def test_urls_among_the_settings_are_shown_without_secrets(url: str, shown: str) -> None:
    command = click.Command("x", params=[click.Option(["--otlp-endpoint"])])
    with command.make_context("x", ["--otlp-endpoint", url]) as ctx:
        assert [(one.value, one.source) for one in effective(ctx)] == [(shown, "flag")]
