"""Ways to learn a table, one file each. A method is ``(problem, folder, curve) -> (table, whether interrupted)``."""
