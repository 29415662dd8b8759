"""No guidance: the conditional prediction as it is."""

from diffexp.guiders.base import Predict
from diffexp.registry import guidance


@guidance(name="none")
def no_guidance(predict: Predict, scale: float) -> Predict:
    """The model's own prediction; ``guidance_scale`` is not used."""
    return predict
