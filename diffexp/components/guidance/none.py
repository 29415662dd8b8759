"""No guidance: the conditional prediction as it is."""

from diffexp import guidance
from diffexp.components.guidance.base import Predict


@guidance(name="none")
def no_guidance(predict: Predict, scale: float) -> Predict:
    """The model's own prediction; ``guidance_scale`` is not used."""
    return predict
