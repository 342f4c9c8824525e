"""New tokens, and what the web configuration file says of them.

A token is 256 random bits. Nobody can guess one from its SHA-256 by trying, as he can a password: a slow hash
would protect nothing more, and would cost its time at every request.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence

PREFIX = "tabor_"
"""By which programs that look for secrets in what people publish know one."""


def new_token() -> str:
    """A token that nobody has."""
    return PREFIX + secrets.token_urlsafe(32)


def entry(token: str, name: str, rights: Sequence[str], tenants: Sequence[str]) -> str:
    """The lines for it below `tokens:`."""
    lines = [
        f"  - name: {json.dumps(name, ensure_ascii=False)}",
        f'    sha256: "{hashlib.sha256(token.encode()).hexdigest()}"',
        f"    rights: [{', '.join(rights)}]",
    ]
    if tenants:
        lines.append(f"    tenants: {json.dumps(list(tenants))}")
    return "\n".join(lines)
