"""Engines: where the worker processes of a sweep or of a large run are started."""
