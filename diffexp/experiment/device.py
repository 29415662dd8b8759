"""When memory runs out."""

import torch

from diffexp.errors import InputError


def out_of_memory(error: Exception) -> bool:
    """Whether this is what torch raises where memory runs out."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    told = str(error).lower()  # only CUDA has a type of its own for it
    return isinstance(error, RuntimeError) and ("out of memory" in told or "can't allocate memory" in told)


def read_device(name: str) -> torch.device:
    """
    Raises:
        InputError: no such device on this machine.
    """
    if name == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device={name} is not available here: {str(error).splitlines()[0]}") from error
    return device


def read_dtype(name: str) -> torch.dtype | None:
    """A floating-point type by name; None for ``auto``.

    Raises:
        InputError: not a floating-point type.
    """
    if name == "auto":
        return None
    found = getattr(torch, name, None)
    if not (isinstance(found, torch.dtype) and found.is_floating_point):
        raise InputError(f"dtype={name} is not known; choose auto, float32, float16, bfloat16 or float64")
    return found
