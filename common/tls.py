"""Certificates, keys and authorities from files into contexts of TLS, with errors that name the file."""

from __future__ import annotations

import ssl
from pathlib import Path

from common.errors import StartupError


def load_certificate(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    """Have a context show this certificate.

    Raises:
        StartupError: a file cannot be read or is none of its kind, or the key is not that of the certificate.
    """
    for file in (cert, key):
        _check_readable(file)
    locked = False

    def no_password() -> str:
        # Without this OpenSSL would ask on the terminal.
        nonlocal locked
        locked = True
        return ""

    try:
        context.load_cert_chain(cert, key, no_password)
    except ssl.SSLError as error:
        if locked:
            raise StartupError(f"{key} is locked with a password; Tabor takes keys without one") from None
        if error.reason == "KEY_VALUES_MISMATCH":
            raise StartupError(f"{key} is not the key of the certificate in {cert}") from None
        raise StartupError(f"no certificate and key in PEM form in {cert} and {key} ({error.reason})") from None


def load_authorities(context: ssl.SSLContext, file: Path) -> None:
    """Have a context trust these authorities besides those that it trusts already. Raises StartupError."""
    _check_readable(file)
    try:
        context.load_verify_locations(file)
    except ssl.SSLError as error:
        raise StartupError(f"no certificates in PEM form in {file} ({error.reason})") from None


def _check_readable(file: Path) -> None:
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        raise StartupError(f"cannot read {file}: {error.strerror}") from None
