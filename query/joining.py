"""Answers of several nodes put together; no series is in two of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from common.histograms import EncodedHistograms
from common.labels import LabelTable, StringPool
from common.store import Metadata, Selection


def join_tables(tables: Sequence[LabelTable]) -> LabelTable:
    """One table of all series, in the order of the tables."""
    if len(tables) == 1:
        return tables[0]
    pool = StringPool()
    names = tuple(sorted({name for table in tables for name in table.names}))
    row = {name: i for i, name in enumerate(names)}
    codes = np.zeros((len(names), sum(map(len, tables))), dtype=np.int32)
    at = 0
    for table in tables:
        # Pools of answers hold what their tables use, and little else.
        renamed = np.array([pool.intern(table.pool[code]) for code in range(len(table.pool))], dtype=np.int32)
        codes[[row[name] for name in table.names], at : at + len(table)] = renamed[table.codes]
        at += len(table)
    return LabelTable(pool, names, codes)


def join_selections(selections: Sequence[Selection]) -> Selection:
    """One selection of all series, in the order of the selections."""
    if len(selections) == 1:
        return selections[0]
    labels = join_tables([selection.labels for selection in selections])
    counts = [np.diff(selection.offsets) for selection in selections]
    offsets = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(np.concatenate(counts), dtype=np.int64)))
    return Selection(
        labels,
        offsets,
        np.concatenate([selection.timestamps for selection in selections]),
        np.concatenate([selection.values for selection in selections]),
        _join_histograms(selections),
    )


def join_texts(answers: Iterable[Sequence[str]]) -> list[str]:
    """Each text once, ascending."""
    return sorted({text for answer in answers for text in answer})


def join_metadata(answers: Iterable[dict[str, list[Metadata]]]) -> dict[str, list[Metadata]]:
    """What is known of each family, without repetition."""
    found: dict[str, set[Metadata]] = {}
    for answer in answers:
        for family, known in answer.items():
            found.setdefault(family, set()).update(known)
    return {family: sorted(known) for family, known in found.items()}


def _join_histograms(selections: Sequence[Selection]) -> EncodedHistograms | None:
    positions: list[NDArray[np.int64]] = []
    lengths: list[NDArray[np.int64]] = []
    data: list[NDArray[np.uint8]] = []
    before = 0
    for selection in selections:
        if selection.histograms is not None:
            positions.append(selection.histograms.positions + before)
            lengths.append(np.diff(selection.histograms.offsets))
            data.append(selection.histograms.data)
        before += len(selection.timestamps)
    if not positions:
        return None
    offsets = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(np.concatenate(lengths), dtype=np.int64)))
    return EncodedHistograms(np.concatenate(positions), offsets, np.concatenate(data))
