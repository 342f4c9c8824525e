"""The check of dependencies' licences."""

from __future__ import annotations

from email.message import Message
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any, cast

import pytest

from tests.licences import STATED, allows, refused


class _Package(Distribution):
    """A package that says of itself what the test wants."""

    def __init__(self, **fields: str | list[str]) -> None:
        self._message = Message()
        self._message["Name"], self._message["Version"] = "thing", "1.0"
        for name, values in fields.items():
            for value in [values] if isinstance(values, str) else values:
                self._message[name.replace("_", "-")] = value

    @property
    def metadata(self) -> Any:
        return self._message

    def read_text(self, filename: str) -> str | None:
        return None

    def locate_file(self, path: Any) -> Any:
        return Path(path)


def test_the_licences_of_all_installed_packages_are_allowed() -> None:
    assert refused(distributions()) == []


def test_each_exception_is_still_needed() -> None:
    installed = {str(package.metadata["Name"]).lower() for package in distributions()}
    assert STATED.keys() <= installed


@pytest.mark.parametrize(
    "fields",
    [
        {"License_Expression": "GPL-3.0-only"},
        {"License_Expression": "MIT AND AGPL-3.0-or-later"},
        {"License": "GNU General Public License v3"},
        {"Classifier": ["License :: OSI Approved :: GNU General Public License v3 (GPLv3)"]},
        # Not said to be a choice, so both hold.
        {"Classifier": ["License :: OSI Approved :: MIT License", "License :: OSI Approved :: GPLv2"]},
        {"License": "as you like it"},
        {},
    ],
)
def test_a_package_under_another_licence_is_named(fields: dict[str, Any]) -> None:
    [line] = refused([cast(Distribution, _Package(**fields))])
    assert line.startswith("thing 1.0 ")


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("GPL-2.0-only OR MIT", True),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", True),
        ("MPL-2.0 AND (GPL-2.0-only OR LGPL-3.0-only)", False),
        ("BSD-2-Clause AND Apache-2.0 WITH LLVM-exception", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("MIT GPL-2.0-only", False),
        ("(MIT", False),
        ("MIT OR", False),
        ("", False),
    ],
)
def test_an_expression_is_allowed_if_it_can_be_kept_to(expression: str, allowed: bool) -> None:
    assert allows(expression) is allowed
