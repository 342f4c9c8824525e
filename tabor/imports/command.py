"""`tabor import`: from files into a running Tabor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common.calling import Caller
from common.errors import CallerError
from tabor.imports.sending import Sender
from tabor.progress import say
from tabor.remote import Server

_ARROW_STREAM_MAGIC = b"\xff\xff\xff\xff"


def run_import(caller: Caller, url: str, files: Sequence[Path], form: str, metric: str | None) -> bool:
    """Send the samples of all files; whether all were taken.

    Raises:
        CallerError: a file cannot be read; names it and the place. What was sent before is stored.
    """
    from tabor.imports.tables import import_table
    from tabor.imports.texts import import_text
    from tabor.imports.victoria import import_victoria

    # All of them first, so that nothing is sent if one has the wrong name.
    forms = [_form(path) if form == "auto" else form for path in files]
    with Server(url, caller) as server:
        sender = Sender(server)
        for path, its_form in zip(files, forms, strict=True):
            before = sender.n_samples
            if its_form in ("parquet", "arrow"):
                import_table(path, its_form, metric, sender)
            elif its_form == "victoriametrics":
                import_victoria(path, sender)
            else:
                import_text(path, its_form, sender)
            say(f"{path}: {sender.n_samples - before:,} samples sent ({its_form})")
    return told(sender)


def told(sender: Sender) -> bool:
    """Whether nothing was refused; says so if not."""
    if sender.n_refusals:
        say(f"of {sender.n_refusals} requests something was refused; the rest of each is stored")
    return not sender.n_refusals


def _form(path: Path) -> str:
    from tabor.imports.texts import text_form

    try:
        with path.open("rb") as file:
            magic = file.read(6)
    except OSError as error:
        raise CallerError(f"{path} cannot be read: {error.strerror}") from None
    if magic.startswith(b"PAR1"):
        return "parquet"
    if magic == b"ARROW1" or magic.startswith(_ARROW_STREAM_MAGIC):
        return "arrow"
    return text_form(path)
