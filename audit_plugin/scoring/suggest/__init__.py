"""Suggests captions for misaligned samples: better ones of the set, and repairs of joins that went wrong."""
