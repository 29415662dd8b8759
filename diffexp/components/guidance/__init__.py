"""Guidance: wraps a model call so that samples follow their condition more closely."""
