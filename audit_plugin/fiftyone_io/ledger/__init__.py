"""Keeps the decisions of reviewers, and applies and undoes the changes that follow from them."""
