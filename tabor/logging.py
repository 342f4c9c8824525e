"""Logs on standard error: JSON or logfmt, one event a line, or coloured text where that is a terminal.

A format that is asked for by name is all that standard error gets: lines for people become events, too.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from common.events import when_first_used
from tabor.progress import say_by

FORMATS = ("auto", "json", "logfmt")
LEVELS = ("debug", "info", "warning", "error")
_BARE = re.compile(r'[^\s"=\\\x00-\x1f\x7f]+')
_ESCAPED = str.maketrans(
    {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    | {chr(code): f"\\x{code:02x}" for code in (*range(9), 11, 12, *range(14, 32), 127)}
)

Render = Callable[[dict[str, Any]], str]


def configure(form: str = "auto", level: str = "info") -> None:
    """Set logging up for this process; structlog itself only when there is something to say."""
    number = getattr(logging, level.upper())
    console = form == "auto" and sys.stderr.isatty()
    render = _logfmt if form == "logfmt" else _json
    when_first_used(lambda: _configure_structlog(None if console else render, number), debugs=level == "debug")
    # What libraries say through logging (uvicorn, confluent-kafka): warnings and worse.
    handler = logging.StreamHandler(sys.stderr)
    if form == "auto":
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        say_by(None)
    else:
        handler.setFormatter(_Formatter(render))
        say_by(
            lambda text: _write(render, {"event": "said", "text": text.strip(), "part": "tabor", "level": "info"})
        )
    logging.basicConfig(level=max(logging.WARNING, number), handlers=[handler], force=True)


def _configure_structlog(render: Render | None, level: int) -> None:
    import structlog

    if render is None:
        shown: list[Any] = [structlog.dev.ConsoleRenderer()]
    else:
        shown = [structlog.processors.dict_tracebacks, lambda logger, method, event: render(event)]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *shown,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )


class _Formatter(logging.Formatter):
    """Records of `logging` as events."""

    def __init__(self, render: Render) -> None:
        super().__init__()
        self._render = render

    def format(self, record: logging.LogRecord) -> str:
        event = {"event": "library", "part": record.name, "level": record.levelname.lower()}
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return self._render({**event, "text": text, "timestamp": _now()})


def _write(render: Render, event: dict[str, Any]) -> None:
    print(render({**event, "timestamp": _now()}), file=sys.stderr, flush=True)


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _json(event: Any) -> str:
    return json.dumps(event, default=str)


def _logfmt(event: dict[str, Any]) -> str:
    """key=value pairs; values that are not one bare word are quoted, what has members becomes JSON in quotes."""
    first = [key for key in ("timestamp", "level", "part", "event") if key in event]
    keys: Iterable[str] = [*first, *(key for key in event if key not in first)]
    return " ".join(f"{key}={_logfmt_value(event[key])}" for key in keys)


def _logfmt_value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    text = _json(value) if isinstance(value, dict | list | tuple) else str(value)
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if _BARE.fullmatch(text) else '"' + text.translate(_ESCAPED) + '"'
