"""What ingest, storage nodes and query share: the log, records, labels, kernels."""
