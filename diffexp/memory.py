"""When memory runs out."""

import torch


def out_of_memory(error: Exception) -> bool:
    """Whether this is what torch raises where memory runs out."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    told = str(error).lower()  # only CUDA has a type of its own for it
    return isinstance(error, RuntimeError) and ("out of memory" in told or "can't allocate memory" in told)
