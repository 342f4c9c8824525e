"""Durations, sizes and addresses of the command line."""

from __future__ import annotations

import click
import pytest

from tabor.values import ADDRESS, DURATION_MS, NODE_NAME, SIZE_BYTES, Address, format_duration


@pytest.mark.parametrize(
    ("text", "duration_ms"),
    [
        ("400d", 400 * 86_400_000),
        ("1h30m", 5_400_000),
        ("500ms", 500),
        ("1m500ms", 60_500),
        ("2w", 1_209_600_000),
    ],
)
def test_a_duration_is_a_sum_of_units(text: str, duration_ms: int) -> None:
    assert DURATION_MS.convert(text, None, None) == duration_ms


@pytest.mark.parametrize("text", ["", "5", "5 minutes", "-5m", "1.5h", "m5"])
def test_what_is_not_a_duration_is_answered_with_an_example(text: str) -> None:
    with pytest.raises(click.BadParameter, match="400d"):
        DURATION_MS.convert(text, None, None)


def test_a_bare_number_of_a_config_file_is_no_duration() -> None:
    with pytest.raises(click.BadParameter, match="400d"):
        DURATION_MS.convert(5, None, None)


@pytest.mark.parametrize("text", ["0s", "0d0h", "1001y", "999999999999999999y"])
def test_a_duration_that_would_keep_nothing_or_overflow_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="above 0 and at most 1000y"):
        DURATION_MS.convert(text, None, None)


@pytest.mark.parametrize("text", ["0", "0KiB", "2000000TiB"])
def test_a_size_of_nothing_or_of_more_than_there_is_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="above 0 and at most 1024 PiB"):
        SIZE_BYTES.convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "size_bytes"), [("32MiB", 32 << 20), ("10GB", 10**10), ("1048576", 1 << 20), ("4k", 4096), ("7 b", 7)]
)
def test_a_size_may_have_a_unit(text: str, size_bytes: int) -> None:
    assert SIZE_BYTES.convert(text, None, None) == size_bytes


@pytest.mark.parametrize("text", ["", "MiB", "5 PB", "1.5G", "-1"])
def test_what_is_not_a_size_is_answered_with_an_example(text: str) -> None:
    with pytest.raises(click.BadParameter, match="32MiB"):
        SIZE_BYTES.convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9080", Address("127.0.0.1", 9080)),
        ("localhost:0", Address("localhost", 0)),
        ("[::1]:9080", Address("::1", 9080)),
        (":9080", Address("0.0.0.0", 9080)),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, address: Address) -> None:
    assert ADDRESS.convert(text, None, None) == address


@pytest.mark.parametrize("text", ["9080", "localhost", "localhost:", "localhost:65536", "::1:80", "a:b:1"])
def test_what_is_not_an_address_is_answered_with_an_example(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"127\.0\.0\.1:9080"):
        ADDRESS.convert(text, None, None)


@pytest.mark.parametrize("duration_ms", [1, 500, 60_000, 5_400_000, 86_400_000, 90_061_001])
def test_a_duration_is_shown_in_a_form_that_is_read_back(duration_ms: int) -> None:
    assert DURATION_MS.convert(format_duration(duration_ms), None, None) == duration_ms


def test_an_address_of_ip_version_6_is_shown_in_brackets() -> None:
    assert str(Address("::1", 80)) == "[::1]:80"


@pytest.mark.parametrize("text", ["", "a b", "a,b", "a/b", "a\n", "a" * 129])
def test_a_name_of_a_node_can_be_written_in_lists_and_on_command_lines(text: str) -> None:
    assert NODE_NAME.convert("rack-1.node_2", None, None) == "rack-1.node_2"
    with pytest.raises(click.BadParameter, match="is no name of a node"):
        NODE_NAME.convert(text, None, None)
