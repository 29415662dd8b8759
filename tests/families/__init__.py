"""Tiny checkpoints of diffusers' pipelines, by the real classes, with seeded random weights and made tokenizers.

``FAMILIES[name].save(folder)`` writes one in a second or two; the session's fixture ``tiny`` makes each once.
"""

from collections.abc import Mapping

from tests.families import flow_images, kandinsky, noise_images, other_inputs, sounds, stable_diffusion, videos
from tests.families.common import Family

FAMILIES: Mapping[str, Family] = {
    **stable_diffusion.FAMILIES,
    **kandinsky.FAMILIES,
    **flow_images.FAMILIES,
    **noise_images.FAMILIES,
    **videos.FAMILIES,
    **sounds.FAMILIES,
    **other_inputs.FAMILIES,
}

_VARIANTS = {"sd15_karras", "flux_terminal", "flux_karras", "flux_beta", "flux_static", "sd3_dynamic", "sd3_karras"}

DISTINCT = tuple(name for name in FAMILIES if name not in _VARIANTS)
"""Without those that differ from another in their scheduler's config alone."""
