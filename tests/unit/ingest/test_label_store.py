"""The store of label sets that an ingestor has to say again."""

from __future__ import annotations

import numpy as np
import pytest

from ingest.label_store import BLOCK_BYTES, LabelStore


def sets(n: int) -> list[bytes]:
    return [b"\x01\x08__name__\x04up%02d\x08instance\x0fhost-%09d:9100" % (i % 100, i * i) for i in range(n)]


@pytest.mark.parametrize("n", [0, 1, 5_000])
def test_what_was_added_is_found_in_whatever_order(n: int) -> None:
    store, label_sets = LabelStore(), sets(n)
    places = np.array(store.add(label_sets), dtype=np.int64)
    sizes = np.array([len(labels) for labels in label_sets], dtype=np.int32)
    asked = np.random.default_rng(3).integers(0, n, 3 * n) if n else np.zeros(0, dtype=np.int64)
    assert store.get(places[asked], sizes[asked]) == [label_sets[i] for i in asked.tolist()]


def test_a_set_may_be_larger_than_a_block_and_empty_ones_have_places_too() -> None:
    large = bytes(range(256)) * (3 * BLOCK_BYTES // 256)
    label_sets = [b"", b"a", large, b"", b"b", large + b"!"]
    store = LabelStore()
    places = [place for labels in label_sets for place in store.add([labels])]
    sizes = np.array([len(labels) for labels in label_sets], dtype=np.int32)
    assert store.get(np.array(places, dtype=np.int64), sizes) == label_sets


def test_neighbours_that_are_alike_take_a_fraction_of_their_bytes() -> None:
    store, label_sets = LabelStore(), sets(20_000)
    store.add(label_sets)
    assert store.nbytes < sum(map(len, label_sets)) / 3
