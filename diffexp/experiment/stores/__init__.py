"""The images of a run on disk: a PNG each, or many in a shard; ``images`` reads every kind, and has their table."""
