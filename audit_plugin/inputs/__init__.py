"""Reads what users have: files, manifests, shards; and knows the modalities."""
