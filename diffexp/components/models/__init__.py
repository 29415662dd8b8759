"""Models: a network (or a formula), its training noise schedule, its conditioning and its decoder."""
