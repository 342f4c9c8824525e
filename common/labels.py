"""Label sets: their canonical bytes, their identity, and columns of many of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import xxhash
from numpy.typing import NDArray

from common.interning import StringBytes

METRIC_NAME = "__name__"

Labels: TypeAlias = Mapping[str, str]


def canonical_labels(labels: Labels) -> bytes:
    """Encode a label set as the bytes that identify it (`docs/format/log-record.md`, 'Label set').

    Labels ascend by the UTF-8 bytes of their names, each as uvarint length, name, uvarint length, value. A label
    with an empty value is the same as no label and is left out.
    """
    pairs = sorted((name.encode(), value.encode()) for name, value in labels.items() if value)
    return b"".join(uvarint(len(name)) + name + uvarint(len(value)) + value for name, value in pairs)


def series_id(canonical: bytes) -> bytes:
    """Identity of a series: xxh3-128 of its canonical bytes, 16 bytes, big-endian as xxhash prints it."""
    return xxhash.xxh3_128_digest(canonical)


def parse_canonical(data: bytes) -> dict[str, str]:
    """Decode canonical bytes that Tabor itself wrote and checked."""
    out: dict[str, str] = {}
    at = 0
    while at < len(data):
        texts = []
        for _ in range(2):
            at, length = _length(data, at)
            texts.append(data[at : at + length].decode())
            at += length
        out[texts[0]] = texts[1]
    return out


def with_label(canonical: bytes, name: bytes, pair: bytes) -> bytes:
    """Canonical bytes with a label more, whose name they lack; `pair` is name and value as they lie there."""
    at = 0
    while at < len(canonical):
        start, size = _length(canonical, at)
        if canonical[start : start + size] > name:
            break
        start, size = _length(canonical, start + size)
        at = start + size
    return canonical[:at] + pair + canonical[at:]


def _length(data: bytes, at: int) -> tuple[int, int]:
    """Where the text begins whose length is at this place, and the length."""
    length = shift = 0
    while True:
        byte = data[at]
        at += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return at, length


def uvarint(value: int) -> bytes:
    """A non-negative integer, seven bits a byte, low bits first (LEB128, as protobuf has it)."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class StringPool:
    """Strings as small integers: code 0 is the empty string, which is also an absent label.

    A pool only grows; codes stay valid for its lifetime. A storage node keeps one pool for all its series
    (positive codes). `fork()` gives a query a pool of its own on top, whose new strings get negative codes and go
    away with the query. Any thread may read a pool and add to it.
    """

    def __init__(self, base: StringPool | None = None) -> None:
        self._base = base
        self._strings: list[str] = [""]
        self._codes: dict[str, int] = {"": 0}
        self._bytes: StringBytes | None = None
        self.made_characters = 0
        """Of the strings that functions of a query have made; see `query.engine.functions.relabel`."""
        self._adding = threading.Lock()

    def fork(self) -> StringPool:
        assert self._base is None
        return StringPool(self)

    def origin(self) -> StringPool:
        """The pool that this one was forked from, or itself."""
        return self if self._base is None else self._base

    def __getitem__(self, code: int) -> str:
        if self._base is None:
            return self._strings[code]
        return self._strings[-code] if code < 0 else self._base[code]

    def find(self, text: str) -> int | None:
        """Code of a string that is in the pool, else None."""
        if self._base is not None:
            code = self._base.find(text)
            if code is not None:
                return code
        return self._codes.get(text)

    def intern(self, text: str) -> int:
        """Code of the string, which is added if it is new."""
        code = self.find(text)
        if code is not None:
            return code
        with self._adding:
            code = self.find(text)
            if code is None:
                code = len(self._strings) if self._base is None else -len(self._strings)
                # The string first: a reader that learns the code must find its string.
                self._strings.append(text)
                self._codes[text] = code
            return code

    def intern_labels(
        self,
        rows: NDArray[np.int64],
        offsets: NDArray[np.int64],
        data: NDArray[np.uint8],
        counts: NDArray[np.int64],
    ) -> NDArray[np.int32]:
        """Codes of names and values of many label sets; Python objects are made for new strings only.

        rows: int64 (n,), the label sets wanted; set i is `data[offsets[i]:offsets[i + 1]]`, canonical and checked.
        counts: int64 (n,), number of labels of each. Returns int32 (sum(counts), 2).
        """
        with self._adding:
            known = self._synced()
            first = len(known)
            codes = known.add(rows, offsets, data, counts)
            texts = known.texts(first)
            # The strings first: a reader that learns a code must find its string.
            self._strings.extend(texts)
            self._codes.update(zip(texts, range(first, first + len(texts)), strict=True))
            return codes

    def utf8(self) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Ends (int64) and bytes (uint8) of the strings: string i is `data[ends[i - 1]:ends[i]]`, for i from 1.

        Holds every code that was known before the call; what is added later does not change it.
        """
        with self._adding:
            known = self._synced()
            return known.ends, known.arena

    def _synced(self) -> StringBytes:
        assert self._base is None
        if self._bytes is None:
            self._bytes = StringBytes()
        fresh = [text.encode(errors="surrogatepass") for text in self._strings[len(self._bytes) :]]
        if fresh:
            # Each as a label set of its own, `text="text"`.
            sets = [2 * (uvarint(len(text)) + text) for text in fresh]
            offsets = np.cumsum([0, *map(len, sets)], dtype=np.int64)
            data = np.frombuffer(b"".join(sets), dtype=np.uint8)
            self._bytes.add(np.arange(len(sets)), offsets, data, np.ones(len(sets), dtype=np.int64))
        return self._bytes

    def __len__(self) -> int:
        """Number of codes that are not negative."""
        return len(self._strings) if self._base is None else len(self._base)


@dataclass(frozen=True, slots=True, eq=False)
class LabelTable:
    """The label sets of many series as columns.

    names: label names, unique, ascending by code point (the metric name is a label like others).
    codes: int32, shape (n_names, n_series); `pool[code]` is the value, 0 stands for an absent label.
    """

    pool: StringPool
    names: tuple[str, ...]
    codes: NDArray[np.int32]

    @classmethod
    def of(cls, label_sets: Sequence[Labels], pool: StringPool | None = None) -> LabelTable:
        """Build a table from label sets, one series each; for tests and small results."""
        pool = pool if pool is not None else StringPool()
        names = tuple(sorted({name for labels in label_sets for name, value in labels.items() if value}))
        codes = np.zeros((len(names), len(label_sets)), dtype=np.int32)
        row = {name: i for i, name in enumerate(names)}
        for column, labels in enumerate(label_sets):
            for name, value in labels.items():
                if value:
                    codes[row[name], column] = pool.intern(value)
        return cls(pool, names, codes)

    def __len__(self) -> int:
        return int(self.codes.shape[1])

    def column(self, name: str) -> NDArray[np.int32]:
        """Codes of one label, shape (n_series,); zeros if no series has it."""
        if name in self.names:
            column: NDArray[np.int32] = self.codes[self.names.index(name)]
            return column
        return np.zeros(len(self), dtype=np.int32)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> LabelTable:
        """The table of the given series, by index or mask."""
        return LabelTable(self.pool, self.names, np.ascontiguousarray(self.codes[:, rows]))

    def labels(self, row: int) -> dict[str, str]:
        """The label set of one series."""
        codes = self.codes[:, row].tolist()
        return {name: self.pool[code] for name, code in zip(self.names, codes, strict=True) if code}

    def __iter__(self) -> Iterator[dict[str, str]]:
        return (self.labels(row) for row in range(len(self)))
