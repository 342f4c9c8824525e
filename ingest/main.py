"""Wiring of the ingest tier.

    Prometheus ──► http.router ──► Ingestor ──► GroupCommitter ──► Log
                                      │              │
                                RemoteWriteReader  Batcher ── SeriesTable

`tabor run` puts the same routes into its own application; `tabor ingest` runs them alone.
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter

from common.log.base import Log
from ingest.config import IngestConfig
from ingest.http import router
from ingest.ingestor import Ingestor


def create(
    log: Log,
    config: IngestConfig | None = None,
    *,
    gate: Callable[[], str | None] | None = None,
) -> tuple[Ingestor, APIRouter]:
    """An ingestor, started, and its routes. The caller closes first the ingestor, then the log."""
    ingestor = Ingestor(log, config, gate=gate)
    ingestor.start()
    return ingestor, router(ingestor)
