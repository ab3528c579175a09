"""Experiments on the memorization metric: each is one command that writes JSON and a picture."""
