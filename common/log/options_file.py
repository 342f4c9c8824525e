"""Options of librdkafka in a file, the place for passwords: lines of `name=value`, as kcat and Kafka have them."""

from __future__ import annotations

import re
from pathlib import Path

from common.errors import StartupError
from common.events import EventLog

MAX_BYTES = 64 << 10
_OTHERS_MAY_READ = 0o004
_NAME = re.compile(r"[a-z][a-z0-9.]*")

_log = EventLog("log")
_said: set[Path] = set()


def read_options(path: Path) -> dict[str, str]:
    """The options in a file; empty lines and lines that begin with '#' say nothing.

    Raises:
        StartupError: it cannot be read; names file and line, never a value.
    """
    try:
        with path.open("rb") as file:
            open_to_all = bool(path.stat().st_mode & _OTHERS_MAY_READ)
            content = file.read(MAX_BYTES + 1)
        text = content.decode()
    except OSError as error:
        raise StartupError(f"the options of Kafka in {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise StartupError(f"the options of Kafka in {path} are not UTF-8") from None
    if len(content) > MAX_BYTES:
        raise StartupError(f"the options of Kafka in {path} have more than {MAX_BYTES} bytes")
    options: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = line.partition("=")
        name = name.strip()
        # What is no name may be a piece of a password, and is not shown.
        if not equals or not _NAME.fullmatch(name):
            raise StartupError(f"{path}, line {number}: name=value is expected, with a name as librdkafka has it")
        if name in options:
            raise StartupError(f"{path}, line {number}: {name} is there twice")
        options[name] = value.strip()
    if open_to_all and path not in _said:
        _said.add(path)
        _log.warning("options_file_open_to_all", file=str(path), advice="chmod o-r")
    return options
