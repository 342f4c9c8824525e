"""Which form of an answer a client wants, by its `Accept` header (RFC 9110, 12.5.1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType

_REMEMBERED_LENGTH = 200


def weights(header: str) -> Mapping[str, float]:
    """Each item of a header of this kind, in lower case, with its weight; one that cannot be read counts 0."""
    return _remembered(header) if len(header) <= _REMEMBERED_LENGTH else dict(_items(header))


@lru_cache(maxsize=64)
def _remembered(header: str) -> Mapping[str, float]:
    # A client sends the same with every request.
    return MappingProxyType(dict(_items(header)))


def _items(header: str) -> Iterator[tuple[str, float]]:
    for part in header.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                try:
                    weight = float(value)
                except ValueError:
                    weight = 0.0
        yield name, weight


def preferred(accept: str, other: str, default: str) -> str:
    """The media type that is more welcome; the default unless the other one is, or is as welcome and named.

    A client that accepts neither gets the default: Prometheus does not look at the header at all.
    """
    weighed = weights(accept)

    def welcome(media_type: str) -> tuple[float, int]:
        # Of the ranges that a type is in, the most specific one counts.
        for rank, name in enumerate((media_type, media_type.partition("/")[0] + "/*", "*/*")):
            if name in weighed:
                return weighed[name], -rank
        return 0.0, -3

    return other if welcome(other)[0] > 0.0 and welcome(other) > welcome(default) else default
