"""Commands for the web configuration file: tokens, passwords, a check."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from common.access import Right
from tabor.cli.options import options_of
from tabor.progress import say


@click.group("web-config")
def web_config() -> None:
    """Make what a web configuration file (--web-config) needs, and check one.

    \b
      tabor web-config token --name prometheus --right write    a token, and what to write into the file
      tabor web-config hash-password                            the hash of a password, for basic_auth_users
      tabor web-config check FILE                               what is wrong in a file, or who gets in

    docs/security.md says what the file may hold.
    """


@web_config.command()
@options_of(
    click.option("--name", required=True, help="Who will have it; shows in messages."),
    click.option(
        "--right",
        "rights",
        type=click.Choice([str(right.name).lower() for right in Right]),
        multiple=True,
        required=True,
        help="What he may do; several may be given.",
    ),
    click.option("--tenant", "tenants", multiple=True, help="Binds him to tenants.  [default: none]"),
    click.option(
        "--output",
        type=click.Path(dir_okay=False, path_type=Path),
        default=None,
        help="File to write the token to, readable by you alone; must not exist.  [default: standard output]",
    ),
)
def token(name: str, rights: tuple[str, ...], tenants: tuple[str, ...], output: Path | None) -> None:
    """Make a token. The file gets its hash alone, so the token itself is not to be found out again."""
    from common.tenants import why_no_tenant
    from tabor.doors.config import why_no_name
    from tabor.doors.tokens import entry, new_token

    for option, reason in [("--name", why_no_name(name)), *(("--tenant", why_no_tenant(one)) for one in tenants)]:
        if reason is not None:
            raise click.BadParameter(reason, param_hint=f"'{option}'")
    made = new_token()
    if output is None:
        say("the token, which is shown this once:")
        click.echo(made)
    else:
        _write_secret(output, made)
        say(f"the token is in {output}")
    if output is None or sys.stdout.isatty():
        say("add this to the file, below 'tokens:':")
    click.echo(entry(made, name, rights, tenants), err=output is None)


@web_config.command("hash-password")
@click.option(
    "--cost", type=click.IntRange(10, 15), default=10, show_default=True, help="Each step doubles the work."
)
def hash_password(cost: int) -> None:
    """Ask for a password, or read it from standard input, and print its bcrypt hash for basic_auth_users."""
    import bcrypt

    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    secret = password.encode()
    if not secret or len(secret) > 72 or b"\0" in secret:
        raise click.ClickException("a password has 1 to 72 bytes; bcrypt would not look at more")
    click.echo(bcrypt.hashpw(secret, bcrypt.gensalt(cost)).decode())


@web_config.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def check(file: Path) -> None:
    """Say what is wrong in FILE and in the certificates that it names, or who gets in."""
    from datetime import UTC, datetime

    from tabor.doors.config import load
    from tabor.doors.door import Door
    from tabor.doors.tls import expires_at_s

    click.echo(f"{'door:':<24} {Door(file).describe()}")
    config = load(file)
    if config.tls is not None:
        end_s = expires_at_s(config.tls)
        end = f"until {datetime.fromtimestamp(end_s, UTC):%Y-%m-%d %H:%M} UTC" if end_s else "has ended"
        click.echo(f"{'certificate:':<24} {end}")
    people = [(f"token {who.name}", who) for who in config.tokens.values()]
    people += [(f"user {name}", user.principal) for name, user in config.users.items()]
    people += [(f"certificate {subject}", who) for subject, who in config.certificates.items()]
    for name, who in people:
        rights = ", ".join(str(right.name).lower() for right in Right if who.may(right))
        click.echo(f"{name + ':':<24} {rights}" + (f"; tenants {', '.join(who.tenants)}" if who.tenants else ""))


def _write_secret(path: Path, secret: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise click.ClickException(f"cannot make {path}: {error.strerror}") from None
    with os.fdopen(descriptor, "w") as file:
        file.write(secret + "\n")
