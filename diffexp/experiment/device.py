"""Devices and precisions by name, and running out of memory."""

import torch

from diffexp.errors import InputError


def out_of_memory(error: Exception) -> bool:
    """Whether torch raised it because memory ran out."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    message = str(error).lower()  # only CUDA has a type of its own for it
    return isinstance(error, RuntimeError) and ("out of memory" in message or "can't allocate memory" in message)


def read_device(name: str) -> torch.device:
    """The device of a name; for ``auto`` the accelerator, or the CPU where there is none.

    Raises:
        InputError: this machine has no such device.
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
