"""Under which licences the installed packages stand: `python -m tests.licences` names those that may not be used.

Reads the metadata of what is installed, so it needs no network. `make lint` runs it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions

ALLOWED = {
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "PSF-2.0",
    "Python-2.0",
    "Unlicense",
    "Zlib",
    # Reciprocal for its own files only, which are used as they are.
    "MPL-2.0",
}
"""SPDX identifiers of licences that leave Tabor's own (Apache-2.0) as it is."""

STATED = {
    "atheris": ("Apache-2.0", "its metadata say nothing; the LICENSE of its repository does"),
    "python-dateutil": ("Apache-2.0 AND BSD-3-Clause", "'Dual License' in its metadata; its LICENSE says which"),
}
"""What the metadata of a package leave open, and where it is said."""

# Names that packages give in other forms than SPDX's, in lower case and without "license" and punctuation.
_SPELLINGS = {
    "apache 2 0": "Apache-2.0",
    "apache software": "Apache-2.0",
    "apache": "Apache-2.0",
    "bsd": "BSD-3-Clause",
    "new bsd": "BSD-3-Clause",
    "modified bsd": "BSD-3-Clause",
    "3 clause bsd": "BSD-3-Clause",
    "bsd 3 clause": "BSD-3-Clause",
    "2 clause bsd": "BSD-2-Clause",
    "bsd 2 clause": "BSD-2-Clause",
    "mit": "MIT",
    "the mit mit": "MIT",
    "isc": "ISC",
    "mozilla public 2 0 mpl 2 0": "MPL-2.0",
    "python software foundation": "PSF-2.0",
    "psf": "PSF-2.0",
    "the unlicense unlicense": "Unlicense",
    "zlib libpng": "Zlib",
}
# Classifiers that name no licence.
_NO_LICENCE = {"OSI Approved", "DFSG approved"}


def refused(packages: Iterable[Distribution]) -> list[str]:
    """One line for each package whose licence is not allowed or not known."""
    lines = {}
    for package in packages:
        name = str(package.metadata["Name"])
        said = STATED[name.lower()][0] if name.lower() in STATED else stated(package)
        if said is None:
            lines[name] = f"{name} {package.version} does not say its licence"
        elif not allows(said):
            lines[name] = f"{name} {package.version} is under {said!r}"
    return [lines[name] for name in sorted(lines, key=str.lower)]


def stated(package: Distribution) -> str | None:
    """The licence in a package's metadata as an SPDX expression, or as it is written; None if there is none."""
    metadata = package.metadata
    if expression := metadata.get("License-Expression"):
        return str(expression)
    text = str(metadata.get("License") or "").strip()
    # Some put the whole text there.
    if text and text != "UNKNOWN" and "\n" not in text:
        return _spelled(text)
    classified = [
        line.rpartition("::")[2].strip()
        for line in metadata.get_all("Classifier") or []
        if line.startswith("License ::")
    ]
    found = [_spelled(name) for name in classified if name not in _NO_LICENCE]
    # Several are a choice or not, which is not said: then all of them have to be allowed.
    return " AND ".join(sorted(found)) if found else None


def allows(expression: str) -> bool:
    """Whether an SPDX expression can be kept to with allowed licences only; False if it is none."""
    tokens = re.findall(r"[()]|[^\s()]+", expression)
    try:
        result = _any_of(tokens)
    except IndexError:
        return False
    return result and not tokens


def _any_of(tokens: list[str]) -> bool:
    result = _all_of(tokens)
    while tokens and tokens[0].upper() == "OR":
        tokens.pop(0)
        result |= _all_of(tokens)
    return result


def _all_of(tokens: list[str]) -> bool:
    result = _one(tokens)
    while tokens and tokens[0].upper() == "AND":
        tokens.pop(0)
        result &= _one(tokens)
    return result


def _one(tokens: list[str]) -> bool:
    name = tokens.pop(0)
    if name == "(":
        result = _any_of(tokens)
        return tokens.pop(0) == ")" and result
    if tokens and tokens[0].upper() == "WITH":
        name = f"{name} WITH {tokens[1]}"
        del tokens[:2]
    return name in ALLOWED


def _spelled(name: str) -> str:
    words = re.sub(r"[^a-z0-9]+", " ", re.sub(r"(?i)\blicen[cs]e\b|\bversion\b", " ", name).lower())
    return _SPELLINGS.get(" ".join(words.split()), name)


def main() -> int:
    """Print what is refused; 1 if anything is."""
    lines = refused(distributions())
    for line in lines:
        print(f"{line}; choose another package, or allow it in tests/licences.py and say why", file=sys.stderr)
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main())
