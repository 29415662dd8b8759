"""The mathematics: noise levels, and schedulers as tables of numbers that are compiled, executed and compared."""
