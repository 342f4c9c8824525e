"""`/federate`: the latest sample of each series, in Prometheus' text format."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from common.labels import METRIC_NAME
from common.store import STALE_NAN_BITS, Matcher, SeriesStore
from query.engine.budget import Budget
from query.engine.gofmt import label_set
from query.json_result import sample_text
from query.promql.quoting import quote

_PLAIN = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


def federated(
    store: SeriesStore,
    matcher_sets: Sequence[Sequence[Matcher]],
    now_ms: int,
    lookback_ms: int,
    budget: Budget,
) -> bytes:
    """Float series that match any of the sets, by name, with their latest samples of the lookback.

    Series that have ended are left out. Raises TooManySamples, TooManySeries.
    """
    lines: dict[str, tuple[str, str]] = {}
    for matchers in matcher_sets:
        selection = budget.select(store, matchers, now_ms - lookback_ms + 1, now_ms)
        # Who asked may have gone away meanwhile.
        budget.check()
        last = selection.offsets[1:] - 1
        wanted = selection.values[last].view(np.int64) != STALE_NAN_BITS
        if selection.histograms is not None:
            # The text format has no native histograms.
            wanted &= ~np.isin(last, selection.histograms.positions)
        for row in np.flatnonzero(wanted).tolist():
            labels = dict(selection.labels.labels(row))
            name = labels.pop(METRIC_NAME, "")
            if not name:
                continue
            # Without it, who scrapes this would put in an instance of its own.
            labels.setdefault("instance", "")
            at = int(last[row])
            text = f"{sample_text(float(selection.values[at]))} {int(selection.timestamps[at])}"
            plain = _PLAIN.fullmatch(name) is not None
            series = f"{name}{label_set(labels)}" if plain else f"{{{quote(name)}, {label_set(labels)[1:]}"
            lines[series] = (name if plain else quote(name), f"{series} {text}\n")
    out = []
    before = None
    for name, line in (lines[series] for series in sorted(lines, key=lambda s: (lines[s][0], s))):
        if name != before:
            out.append(f"# TYPE {name} untyped\n")
            before = name
        out.append(line)
    return "".join(out).encode()
