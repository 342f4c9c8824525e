"""Pairs are cut where their content says so."""

from __future__ import annotations

import random

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from storage_node.backup import pieces as module
from storage_node.backup.errors import BackupCorrupt
from storage_node.backup.pieces import Piece, pack, pieces, unpack
from storage_node.copies import split_pairs

Pairs = list[tuple[bytes, bytes]]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_BYTES", 100)
    monkeypatch.setattr(module, "MEAN_BYTES", 300)
    monkeypatch.setattr(module, "MOST_BYTES", 2_000)


def some_pairs(n: int, seed: int = 0) -> Pairs:
    source = random.Random(seed)
    return [(b"%08d" % (2 * i), source.randbytes(source.randrange(60))) for i in range(n)]


def cut(pairs: Pairs) -> list[Piece]:
    return list(pieces(pairs))


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.binary(min_size=1, max_size=20), st.binary(max_size=400), max_size=60))
def test_pieces_hold_the_pairs_in_their_order(content: dict[bytes, bytes]) -> None:
    pairs = sorted(content.items())
    found = cut(pairs)
    assert [pair for piece in found for pair in split_pairs(memoryview(piece.content))] == pairs
    assert cut(pairs) == found
    assert all(len(piece.content) >= 100 for piece in found[:-1])
    assert all(unpack(piece.name, len(piece.content), pack(piece.content)) == piece.content for piece in found)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1999), st.sampled_from(["in", "out", "changed"]), st.integers(0, 5))
def test_a_change_in_one_place_changes_only_the_pieces_there(at: int, what: str, seed: int) -> None:
    before = some_pairs(2000, seed)
    after = list(before)
    if what == "in":
        after.insert(at + 1, (b"%08d" % (2 * at + 1), b"new"))
    elif what == "out":
        del after[at]
    else:
        after[at] = (after[at][0], after[at][1] + b"x")
    old, new = {piece.name for piece in cut(before)}, {piece.name for piece in cut(after)}
    assert len(old) > 60
    assert len(new - old) <= 8


def test_pieces_are_neither_tiny_nor_huge_whatever_the_keys_are() -> None:
    same_value = [(b"%08d" % i, b"v" * 20) for i in range(5000)]
    sizes = [len(piece.content) for piece in cut(same_value)]
    assert max(sizes) <= 2_000 + 36
    assert 200 < sum(sizes) / len(sizes) < 600


def test_nothing_is_cut_into_nothing() -> None:
    assert cut([]) == []


def test_what_is_not_what_its_name_says_is_corrupt() -> None:
    (piece,) = cut(some_pairs(3))
    stored = pack(piece.content)
    size = len(piece.content)
    for length in range(len(stored)):
        with pytest.raises(BackupCorrupt, match=piece.name):
            unpack(piece.name, size, stored[:length])
    for at in range(len(stored)):
        flipped = stored[:at] + bytes([stored[at] ^ 0x10]) + stored[at + 1 :]
        try:
            assert unpack(piece.name, size, flipped) == piece.content
        except BackupCorrupt:
            continue
    with pytest.raises(BackupCorrupt):
        unpack(piece.name, size + 1, stored)
    with pytest.raises(BackupCorrupt):
        unpack(piece.name, size, pack(piece.content[:-1] + b"?"))


def test_a_small_object_that_claims_to_be_huge_takes_no_memory() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(200 << 20))
    assert len(bomb) < 50_000
    with pytest.raises(BackupCorrupt, match="another size"):
        unpack("0" * 64, 1000, bomb)
