"""Metrics of a run, one file each."""
