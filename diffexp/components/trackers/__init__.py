"""Trackers, which log runs: one in each file."""
