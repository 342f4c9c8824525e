"""`python -m tabor` is the same as `tabor`."""

from tabor.cli import main

main()
