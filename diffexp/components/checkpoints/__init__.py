"""Checkpoints on disk, in the cache of the hub and on the hub: their files, and how they are downloaded and loaded."""
