"""Guidance: wraps a model call to sharpen what the condition asks for."""
