"""What makes a service ready sooner: most of its start is importing modules."""

from __future__ import annotations

import gc
import os


def begin() -> None:
    """Before the imports of a service.

    Nothing that imports make is garbage, so looking for garbage in between, a quarter of their time, is put off
    until `end`. Of the web framework's models of requests and documents, none of which Tabor uses, none is built
    before it is used, and no plugins are looked for that would have a say in it.
    """
    gc.disable()
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from pydantic import BaseModel

    BaseModel.model_config["defer_build"] = True


def end() -> None:
    """After them: garbage is collected again, though never looked for among what they made."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
