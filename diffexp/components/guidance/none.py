"""No guidance."""

from diffexp import guidance
from diffexp.components.guidance.base import Predict


@guidance(name="none", pipelines=True, ignores_scale=True)
def no_guidance(predict: Predict, scale: float) -> Predict:
    """Return the model's own conditional prediction; ``guidance_scale`` is not used."""
    return predict
