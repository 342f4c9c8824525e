"""Strings as Go writes and reads them, which is how PromQL spells them and how its messages show them.

Source: the Go language specification, 'String literals', and the verbs %q and %#U of Go's package fmt.
"""

from __future__ import annotations

import re

_SHOWN = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
}
_READ = {shown[1]: char.encode() for char, shown in _SHOWN.items()} | {"'": b"'", '"': b'"'}
_PLAIN = re.compile(r"[ !#-\[\]-~]*\Z")
_ESCAPE = re.compile(r"\\(?:([abfnrtv\\'\"])|([0-7]{3})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))")


def quote(text: str) -> str:
    """A double-quoted literal that `unquote` reads back; %q of Go.

    Lone low surrogates stand for bytes that are not UTF-8 (PEP 383) and are shown as `\\xNN`.
    """
    if _PLAIN.match(text):
        return f'"{text}"'
    return '"' + "".join(_shown(char, '"') for char in text) + '"'


def quote_char(char: str) -> str:
    """One code point in single quotes; the empty string, the end of input, shows as Go shows no rune."""
    return "'" + (_shown(char, "'") if char else "\ufffd") + "'"


def describe_char(char: str) -> str:
    """`U+0071 'q'`; %#U of Go."""
    code = f"U+{ord(char):04X}"
    return f"{code} '{char}'" if _is_printable(char) else code


def unquote(literal: str) -> str:
    """The value of a literal in single, double or back quotes whose escapes the lexer has checked.

    Bytes that are not UTF-8, written as `\\xff` or `\\377`, become lone surrogates (PEP 383).
    """
    body = literal[1:-1]
    if literal[0] == "`" or "\\" not in body:
        return body
    out = bytearray()
    at = 0
    for match in _ESCAPE.finditer(body):
        out += body[at : match.start()].encode()
        simple, octal, byte, short, long = match.groups()
        if simple:
            out += _READ[simple]
        elif octal or byte:
            out.append(int(octal, 8) if octal else int(byte, 16))
        else:
            out += chr(int(short or long, 16)).encode()
        at = match.end()
    out += body[at:].encode()
    return out.decode("utf-8", "surrogateescape")


def is_utf8(text: str) -> bool:
    """Whether a text can be encoded, that is, holds no lone surrogates."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(char: str, quote_mark: str) -> str:
    if char == quote_mark:
        return "\\" + char
    if char in _SHOWN:
        return _SHOWN[char]
    if _is_printable(char):
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _is_printable(char: str) -> bool:
    # U+FFFD is printable to Go, but the lexer takes it for a broken string, so it is always escaped.
    return char.isprintable() and char != "\ufffd"
