"""Writes audits into datasets: fields, tags, saved views and runs, and new datasets from manifests and tables."""
