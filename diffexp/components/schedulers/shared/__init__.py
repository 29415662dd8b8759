"""Formulas that several schedulers share."""
