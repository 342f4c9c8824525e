"""Logs: JSON lines on standard error, or coloured text where that is a terminal."""

from __future__ import annotations

import logging
import sys

from common.events import when_first_used


def configure() -> None:
    """Set logging up for this process; structlog itself only when there is something to say."""
    when_first_used(_configure_structlog)
    # What libraries say through logging (uvicorn, confluent-kafka): warnings and worse.
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")


def _configure_structlog() -> None:
    import structlog

    terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if terminal else [structlog.processors.dict_tracebacks]),
            structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
