"""Measurements: fixed seeds, one command, peers in the same run. See `python -m bench --help`."""
