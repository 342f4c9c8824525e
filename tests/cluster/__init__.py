"""A whole cluster of processes, broken on purpose: `python -m tests.cluster --help`."""
