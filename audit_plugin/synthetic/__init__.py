"""Draws data with known faults."""
