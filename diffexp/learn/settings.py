"""Settings of learning, beside the config of the run that it is for."""

from dataclasses import dataclass, fields
from typing import Any, Self

from diffexp.errors import InputError, hint

METHODS = ("gauss_newton", "endpoint", "grid", "least_squares", "levels", "spectrum")
LOSSES = ("pixels", "features", "distribution")
SPECTRA = ("natural", "mnist", "fitted")
NOISES = ("kept", "annealed")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a plan is learned."""

    method: str = "gauss_newton"
    loss: str = "pixels"
    """Distance to the accurate solution of the same noise in pixels or in features, or of the distributions."""
    log: bool = True
    """Whether distances count by their logarithm, as decibels do."""
    iterations: int = 16
    learning_rate: float = 0.02
    """Of gradient descent."""
    batch: int = 32
    """Samples in a batch of an iteration."""
    train: int = 128
    """Noises that are learned from."""
    valid: int = 64
    """Noises that choose the best table on the way."""
    test: int = 256
    """Noises that neither has seen, for the comparison at the end; 0 leaves it out."""
    spectrum: str = "natural"
    """What ``method=spectrum`` learns on."""
    noise: str = "kept"
    """Whether a scheduler that draws noise keeps doing so, or is led to draw none."""

    def __post_init__(self) -> None:
        for key, allowed in CHOICES.items():
            if (value := getattr(self, key)) not in allowed:
                raise InputError(f"{key}={value} is not known{hint(str(value), allowed)}")
        for key in ("iterations", "batch", "train", "valid"):
            if getattr(self, key) < 1:
                raise InputError(f"{key}={getattr(self, key)} must be at least 1")
        if self.test < 0 or not self.learning_rate > 0:
            key = "test" if self.test < 0 else "learning_rate"
            raise InputError(f"{key}={getattr(self, key)} must be greater than 0")

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """The settings with these values, converted to the types of the defaults.

        Raises:
            InputError: a value of another type, or out of range.
        """
        found: dict[str, Any] = {}
        values = BY_METHOD.get(str(values.get("method")), {}) | values
        for field in fields(cls):
            if field.name not in values:
                continue
            value, kind = values[field.name], type(field.default)
            fits = isinstance(value, kind) or (kind is float and isinstance(value, int))
            if not fits or (kind is not bool and isinstance(value, bool)):
                raise InputError(f"{field.name}={value} is not a {_NAMES[kind]}")
            found[field.name] = kind(value)
        return cls(**found)


CHOICES = {"method": METHODS, "loss": LOSSES, "spectrum": SPECTRA, "noise": NOISES}
GRADIENT = {"iterations": 300, "batch": 16}
BY_METHOD = {"endpoint": GRADIENT, "levels": GRADIENT}
"""Defaults of methods where they are others."""
KEYS = tuple(field.name for field in fields(Settings))
_NAMES = {str: "name", int: "whole number", float: "number", bool: "true or false"}
