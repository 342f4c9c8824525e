"""Ingest: samples from Prometheus' remote write, or from numpy columns, to records in the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingest.errors import DeliveryFailed, InvalidLabels
    from ingest.producer import Producer

__all__ = ["DeliveryFailed", "InvalidLabels", "Producer"]


def __getattr__(name: str) -> object:
    if name == "Producer":
        from ingest.producer import Producer

        return Producer
    if name in ("DeliveryFailed", "InvalidLabels"):
        from ingest import errors

        return getattr(errors, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
