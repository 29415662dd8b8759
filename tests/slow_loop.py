"""A loop as a plugin that takes its time, and writes which of its batches it began and finished."""


def slow_loop(seconds: float) -> str:
    """The source of ``loop=slow``, which sleeps so long before a batch; with ``loop.kills=true`` its process dies."""
    return f"""
import os
import time

from diffexp import loop
from diffexp.components.loops.denoise import denoise


@loop(solves_from_noise=True)
def slow(batch, *, seconds: float = {seconds}, kills: bool = False):
    if kills:
        os.kill(os.getpid(), 9)
    with open(f"batches-{{os.getpid()}}", "a") as batches:
        batches.write("begun ")
        batches.flush()
        time.sleep(seconds)
        found = denoise(batch)
        batches.write("finished ")
    return found
"""
