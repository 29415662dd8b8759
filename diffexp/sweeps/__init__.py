"""Sweeps: many runs as one computation, and their results."""
