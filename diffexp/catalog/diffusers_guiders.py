"""Guider classes of diffusers that are options ``guidance=diffusers/<name>``, and why the others are not."""

from collections.abc import Mapping, Sequence

from diffexp.catalog.types import OptionType

CLASSES: Mapping[str, tuple[str, str]] = {
    "apg": ("adaptive_projected_guidance", "AdaptiveProjectedGuidance"),
    "apg_mix": ("adaptive_projected_guidance_mix", "AdaptiveProjectedMixGuidance"),
    "cfg": ("classifier_free_guidance", "ClassifierFreeGuidance"),
    "cfg_zero_star": ("classifier_free_zero_star_guidance", "ClassifierFreeZeroStarGuidance"),
    "fdg": ("frequency_decoupled_guidance", "FrequencyDecoupledGuidance"),
    "mambo_g": ("magnitude_aware_guidance", "MagnitudeAwareGuidance"),
    "tcfg": ("tangential_classifier_free_guidance", "TangentialClassifierFreeGuidance"),
}
"""Option name: the module ``diffusers.guiders.<module>``, and the class in it."""

PAPERS: Mapping[str, str] = {
    "apg": "Sadat et al. 2024, arXiv:2410.02416",
    "apg_mix": "APG after some steps of cfg, as in HunyuanImage 2.1",
    "cfg": "guidance=cfg between two steps of the run",
    "cfg_zero_star": "Fan et al. 2025, arXiv:2503.18886, for flow models",
    "fdg": "Sadat et al. 2025, arXiv:2506.19713; needs kornia; its scales are guidance_scales",
    "mambo_g": "arXiv:2508.03442; fails on images in diffusers 0.42.1",
    "tcfg": "Kwon et al. 2025, arXiv:2503.18137",
}
"""Description of each for ``--help``."""

REQUIRES: Mapping[str, Sequence[str]] = {"fdg": ("kornia",)}
"""Packages without which a class cannot be used."""

CHANGES_LAYERS = "changes layers of the network while it runs, which a guidance cannot do here"
EXCLUDED: Mapping[str, str] = {
    "AutoGuidance": CHANGES_LAYERS,
    "PerturbedAttentionGuidance": CHANGES_LAYERS,
    "SkipLayerGuidance": CHANGES_LAYERS,
    "SmoothedEnergyGuidance": CHANGES_LAYERS,
    "LTX2Guidance": "is for the video and audio network of LTX-2 only",
}
"""The other classes, with the end of the message about them."""

REFUSED: Mapping[str, str] = {
    "guidance_scale": "is guidance_scale=..., for every guidance",
    "enabled": "would turn guidance off: that is guidance=none",
}
"""Options that are refused, with the end of the message about them."""

MISTYPED: Mapping[str, OptionType] = {
    "adaptive_projected_guidance_momentum": OptionType("float", optional=True),
    "adaptive_projected_guidance_norm_dim": OptionType("list", optional=True, item=OptionType("int")),
    "guidance_scales": OptionType("list", item=OptionType("float")),
    "guidance_rescale": OptionType("float"),
    "parallel_weights": OptionType("list", optional=True, item=OptionType("float")),
    "start": OptionType("float"),
    "stop": OptionType("float"),
}
"""Types where annotations of diffusers allow more than a config holds, or omit null."""
