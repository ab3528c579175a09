"""Reads datasets: which fields hold which modality, the samples of an audit, and what a sample holds now."""
