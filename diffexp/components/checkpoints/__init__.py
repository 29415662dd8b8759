"""Checkpoints on disk, in the hub's cache and on the hub: their files, and how to download them."""
