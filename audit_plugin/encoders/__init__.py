"""Turns media into features, once per content."""
