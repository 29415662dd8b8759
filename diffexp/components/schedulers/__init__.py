"""Schedulers, one method a file. None imports another."""
