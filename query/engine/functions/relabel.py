"""label_replace and label_join: new labels from old ones. Each different value is looked at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.labels import METRIC_NAME, StringPool
from query.engine.functions.registry import Function, string_of, vector_of
from query.engine.labeling import set_label
from query.engine.values import Context, EvalError, Value, Vector
from query.promql.ast import Call
from query.promql.quoting import is_utf8

MAX_VALUE = 64 << 10
"""Characters of a label value that is made here; functions in one another could double it again and again."""
MAX_MADE = 256 << 20
"""Characters of all such values of one query."""

_REFERENCE = re.compile(r"\$(?:(\$)|\{(\w+)\}|(\w+))")


def compile_template(template: str, group_names: dict[str, int]) -> Callable[[Any], str]:
    """How Go's Regexp.Expand fills in `$1`, `${1}`, `$name` and `$$` from a match (with a method `group`).

    A reference to a group that does not exist or took no part is empty; a `$` without a name stays as it is.
    group_names: numbers of the named groups.
    """
    parts: list[str | int] = []
    at = 0
    for reference in _REFERENCE.finditer(template):
        parts.append(template[at : reference.start()])
        at = reference.end()
        if reference[1]:
            parts.append("$")
            continue
        name = reference[2] or reference[3]
        # Go takes no leading zeros for a number, then looks for a group of that name.
        is_number = name.isascii() and name.isdigit() and (name == "0" or name[0] != "0")
        parts.append(int(name) if is_number else group_names.get(name, -1))
    parts.append(template[at:])

    def expand(match: Any) -> str:
        groups = (match.group(0), *match.groups())
        texts = []
        for part in parts:
            if isinstance(part, str):
                texts.append(part)
            elif 0 <= part < len(groups):
                texts.append(groups[part] or "")
        return _joined("", texts)

    return expand


def _joined(separator: str, texts: Sequence[str]) -> str:
    """Raises EvalError: the result would be too long; before it is made."""
    size = sum(map(len, texts)) + len(separator) * max(0, len(texts) - 1)
    if size > MAX_VALUE:
        raise EvalError(f"a label value would have {size} characters; at most {MAX_VALUE} are allowed")
    return separator.join(texts)


def _interned(pool: StringPool, value: str) -> int:
    pool.made_characters += len(value)
    if pool.made_characters > MAX_MADE:
        raise EvalError(f"the query makes label values of more than {MAX_MADE} characters")
    return pool.intern(value)


def _is_label_name(name: str) -> bool:
    return bool(name) and is_utf8(name)


def _with_label(vector: Vector, name: str, codes: NDArray[np.int32], changed: NDArray[np.bool_]) -> Vector:
    drop_name = vector.drop_name
    if name == METRIC_NAME:
        # A name that was just given is not one to be removed.
        drop_name = drop_name & ~changed
    return replace(vector, labels=set_label(vector.labels, name, codes), drop_name=drop_name)


def _label_replace(context: Context, args: tuple[Value, ...], call: Call) -> Value:
    import re2

    vector = vector_of(args[0])
    target, template, source, pattern = (string_of(value) for value in args[1:5])
    options = re2.Options()
    options.dot_nl = True
    options.log_errors = False
    try:
        regex = re2.compile(pattern, options)
    except re2.error as error:
        raise EvalError(f"invalid regular expression in label_replace(): {pattern}") from error
    if not _is_label_name(target):
        raise EvalError(f"invalid destination label name in label_replace(): {target}")
    labels = vector.labels
    expand = compile_template(template, dict(regex.groupindex))
    codes, inverse = np.unique(labels.column(source), return_inverse=True)
    new_codes = np.zeros(codes.shape, dtype=np.int32)
    matched = np.zeros(codes.shape, dtype=np.bool_)
    for i, code in enumerate(codes.tolist()):
        match = regex.fullmatch(labels.pool[code])
        if match is not None:
            matched[i] = True
            new_codes[i] = _interned(labels.pool, expand(match))
    changed = matched[inverse]
    return _with_label(vector, target, np.where(changed, new_codes[inverse], labels.column(target)), changed)


def _label_join(context: Context, args: tuple[Value, ...], call: Call) -> Value:
    vector = vector_of(args[0])
    target, separator, *sources = (string_of(value) for value in args[1:])
    for source in sources:
        if not _is_label_name(source):
            raise EvalError(f"invalid source label name in label_join(): {source}")
    if not _is_label_name(target):
        raise EvalError(f"invalid destination label name in label_join(): {target}")
    labels = vector.labels
    columns = np.zeros((len(labels), len(sources)), dtype=np.int32)
    for i, source in enumerate(sources):
        columns[:, i] = labels.column(source)
    if sources:
        rows, inverse = np.unique(columns, axis=0, return_inverse=True)
    else:
        rows, inverse = columns[:1], np.zeros(len(labels), dtype=np.intp)
    pool = labels.pool
    joined = [_interned(pool, _joined(separator, [pool[code] for code in row])) for row in rows.tolist()]
    codes = np.array(joined, dtype=np.int32)[inverse.reshape(-1)] if joined else np.zeros(0, dtype=np.int32)
    return _with_label(vector, target, codes, np.ones(len(labels), dtype=np.bool_))


FUNCTIONS: dict[str, Function] = {"label_join": _label_join, "label_replace": _label_replace}
