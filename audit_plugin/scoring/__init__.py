"""Turns evidence into scores, flags and suggestions."""
