"""Measures what is learned in one modality and recalled in the other."""
