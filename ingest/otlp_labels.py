"""Attributes of OTLP as label sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from common.labels import METRIC_NAME
from ingest.errors import PointRefused
from ingest.otlp_names import label_name
from ingest.otlp_values import attribute_text

INFO_STEP_NS = 150_000_000_000
"""Half of the time for which a query looks back, so that it finds `target_info` at any time of a resource."""
_IDENTIFYING = ("service.namespace", "service.name", "service.instance.id")


def resource_labels(attributes: Iterable[Any]) -> dict[str, str]:
    """What every series of a resource has: `job` from the service's name, `instance` from its instance's id."""
    texts = {each.key: attribute_text(each.value) for each in attributes if each.key in _IDENTIFYING}
    job = texts.get("service.name", "")
    if "service.name" in texts and "service.namespace" in texts:
        job = f"{texts['service.namespace']}/{job}"
    labels = {"job": job, "instance": texts.get("service.instance.id", "")}
    return {name: text for name, text in labels.items() if text}


def labels_of(attributes: Iterable[Any], resource: Mapping[str, str]) -> dict[str, str]:
    """Labels for attributes that have a value, and those of the resource, which win.

    Values of attributes whose names become the same are joined with `;`, in the order of the attributes' names.

    Raises:
        PointRefused: nothing of an attribute's name can be in a label's name.
    """
    out: dict[str, str] = {}
    texts = [(each.key, attribute_text(each.value)) for each in attributes if each.key != METRIC_NAME]
    for key, text in sorted(texts, key=lambda pair: pair[0]):
        name = label_name(key)
        if not name:
            raise PointRefused(f"has an attribute {key!r}, which cannot be the name of a label")
        before = out.get(name)
        out[name] = f"{before};{text}" if before else text
    return {name: text for name, text in {**out, **resource}.items() if text}


def info_labels(attributes: Iterable[Any], resource: Mapping[str, str]) -> dict[str, str] | None:
    """Labels of a resource's `target_info`; None if it has nothing to say, or nobody to say it of.

    Raises:
        PointRefused: as `labels_of`.
    """
    others = [each for each in attributes if each.key not in _IDENTIFYING]
    if not others:
        return None
    labels = labels_of(others, resource)
    return {**labels, METRIC_NAME: "target_info"} if "job" in labels or "instance" in labels else None


def info_times(earliest_ns: int, latest_ns: int, room: int) -> list[int]:
    """Times of `target_info`, Unix ns: every `INFO_STEP_NS` from the first data point on, and that of the last.

    If these are more than `room`, only the first and the last.
    """
    n_steps = -((earliest_ns - latest_ns) // INFO_STEP_NS)
    if n_steps >= room:
        return [earliest_ns, latest_ns]
    return [earliest_ns + i * INFO_STEP_NS for i in range(n_steps)] + [latest_ns]
