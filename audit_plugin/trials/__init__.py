"""Trains models with and without each sample."""
