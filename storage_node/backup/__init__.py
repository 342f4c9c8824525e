"""Backups of partitions: objects named by their content, and manifests that list them.

    writing:   pairs of a partition ─► pieces ─► Target (objects, then the manifest)
    restoring: manifest ─► objects ─► CopyWriter ─► views

The format is `docs/format/backup.md`, the reasons are in ADR 0076.
"""
