"""`python -m tests.hasty_nodes storage-node …` is `tabor storage-node …` that waits for peers a second at most."""

from __future__ import annotations

from storage_node.acquiring import Acquirer
from tabor import cli

if __name__ == "__main__":
    defaults = Acquirer.__init__.__kwdefaults__
    assert defaults is not None
    defaults["peer_wait_s"] = 1.0
    cli.main()
