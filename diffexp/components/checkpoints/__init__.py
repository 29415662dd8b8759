"""Checkpoints on disk, in the hub's cache and on the hub: what lies in them, and how to get it."""
