"""`tabor cluster …`: a cluster seen, changed and checked from the command line."""
