"""Measurements of a run: one metric a file."""
