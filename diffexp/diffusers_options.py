"""The scheduler classes of diffusers as options ``scheduler=diffusers/<name>``, read without importing diffusers.

A class takes part where a table can hold what it does, or could but for one of its options. Others still run as
``scheduler=diffusers scheduler._target_=diffusers.X``. Left out are: classes for tokens instead of numbers (Amused,
BlockRefinement, DiscreteDDIM, EntropyBound, VQDiffusion); those whose ``step`` wants more than an output and a sample
(HeliosDMD, KarrasVe, Piflow, RePaint, RFD4Proteina, ScoreSdeVe, ScoreSdeVp); those for networks that no other
scheduler goes with (ConsistencyDecoder, DDPMWuerstchen, Helios, MiniMaxH3, SCM); and those whose noise comes from
torchsde as one path per batch (CosineDPMSolverMultistep, DPMSolverSDE).
"""

import ast
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from diffexp.entries import Entry
from diffexp.options import MISSING, SCALARS, UNREADABLE, Option, OptionType
from diffexp.signatures import Parameter, from_ast
from diffexp.sources import Source

PREFIX = "diffusers/"

CLASSES: Mapping[str, tuple[str, str]] = {
    "cm": ("consistency_models", "CMStochasticIterativeScheduler"),
    "cogvideox_ddim": ("ddim_cogvideox", "CogVideoXDDIMScheduler"),
    "cogvideox_dpm": ("dpm_cogvideox", "CogVideoXDPMScheduler"),
    "ddim": ("ddim", "DDIMScheduler"),
    "ddim_inverse": ("ddim_inverse", "DDIMInverseScheduler"),
    "ddim_parallel": ("ddim_parallel", "DDIMParallelScheduler"),
    "ddpm": ("ddpm", "DDPMScheduler"),
    "ddpm_parallel": ("ddpm_parallel", "DDPMParallelScheduler"),
    "deis": ("deis_multistep", "DEISMultistepScheduler"),
    "dpmsolver_multistep": ("dpmsolver_multistep", "DPMSolverMultistepScheduler"),
    "dpmsolver_multistep_inverse": ("dpmsolver_multistep_inverse", "DPMSolverMultistepInverseScheduler"),
    "dpmsolver_singlestep": ("dpmsolver_singlestep", "DPMSolverSinglestepScheduler"),
    "edm_dpmsolver_multistep": ("edm_dpmsolver_multistep", "EDMDPMSolverMultistepScheduler"),
    "edm_euler": ("edm_euler", "EDMEulerScheduler"),
    "euler": ("euler_discrete", "EulerDiscreteScheduler"),
    "euler_ancestral": ("euler_ancestral_discrete", "EulerAncestralDiscreteScheduler"),
    "flow_map_euler": ("flow_map_euler_discrete", "FlowMapEulerDiscreteScheduler"),
    "flow_match_euler": ("flow_match_euler_discrete", "FlowMatchEulerDiscreteScheduler"),
    "flow_match_heun": ("flow_match_heun_discrete", "FlowMatchHeunDiscreteScheduler"),
    "flow_match_lcm": ("flow_match_lcm", "FlowMatchLCMScheduler"),
    "heun": ("heun_discrete", "HeunDiscreteScheduler"),
    "ipndm": ("ipndm", "IPNDMScheduler"),
    "kdpm2": ("k_dpm_2_discrete", "KDPM2DiscreteScheduler"),
    "kdpm2_ancestral": ("k_dpm_2_ancestral_discrete", "KDPM2AncestralDiscreteScheduler"),
    "lcm": ("lcm", "LCMScheduler"),
    "lms": ("lms_discrete", "LMSDiscreteScheduler"),
    "ltx_euler_ancestral": ("ltx_euler_ancestral_rf", "LTXEulerAncestralRFScheduler"),
    "pndm": ("pndm", "PNDMScheduler"),
    "sasolver": ("sasolver", "SASolverScheduler"),
    "tcd": ("tcd", "TCDScheduler"),
    "unclip": ("unclip", "UnCLIPScheduler"),
    "unipc": ("unipc_multistep", "UniPCMultistepScheduler"),
}
"""Option name: the module ``diffusers.schedulers.scheduling_<module>``, and the class in it."""

TRAINING: tuple[str, ...] = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
    "snr_shift_scale",
    "prediction_type",
    "sigma_data",
    "use_flow_sigmas",
)
"""What the network was trained with: it comes from the model, and no option of a scheduler changes it."""

WITHOUT_EFFECT: tuple[str, ...] = (
    "base_shift",
    "max_shift",
    "base_image_seq_len",
    "max_image_seq_len",
    "scale_factors",
    "upscale_mode",
)
"""What only a pipeline of diffusers reads, or what changes the size of the sample on the way."""

REFUSED: Mapping[str, str] = {
    **dict.fromkeys(TRAINING, "is how the model was trained, which a scheduler does not change"),
    **dict.fromkeys(WITHOUT_EFFECT, "is for diffusers' own pipelines; it would have no effect here"),
}
"""What follows the option's name in the complaint about it."""

_CLIPPING = ("clip_sample", "clip_sample_range", "thresholding", "dynamic_thresholding_ratio", "sample_max_value")
INERT: Mapping[str, tuple[str, ...]] = {
    "CogVideoXDDIMScheduler": (*_CLIPPING, "eta", "use_clipped_model_output"),
    "CogVideoXDPMScheduler": (*_CLIPPING, "eta", "use_clipped_model_output"),
    "FlowMatchEulerDiscreteScheduler": ("s_churn", "s_tmin", "s_tmax", "s_noise"),
    "LCMScheduler": ("timestep_spacing", "steps_offset", "set_alpha_to_one"),
    "TCDScheduler": (*_CLIPPING, "timestep_spacing", "steps_offset", "set_alpha_to_one", "timestep_scaling"),
}
"""Options that a class takes and makes no use of, whatever the others are."""

NOT_OF_A_RUN = ("num_inference_steps", "timesteps", "sigmas", "device", "return_dict", "prev_timestep", "solver_p")

MISTYPED = {"mu": OptionType("float"), "sigma_max": OptionType("float"), "shift_terminal": OptionType("float")}
"""Types that diffusers' annotations get wrong in places (``sigma_max: bool | None``)."""


def class_names() -> list[str]:
    """The options ``diffusers/<name>`` that the installed diffusers has."""
    return [PREFIX + name for name, (module, _) in CLASSES.items() if module in _modules()]


@cache
def class_entry(name: str) -> Entry | None:
    """The entry of an option ``diffusers/<name>``; None where there is no such class.

    Every option is null by default: what the model's own scheduler config says, else the class's default.
    """
    module, cls = CLASSES.get(name.removeprefix(PREFIX), ("", ""))
    if not name.startswith(PREFIX) or module not in _modules():
        return None
    file = _modules()[module]
    text = file.read_text(encoding="utf-8")
    start = text.index(f"\nclass {cls}(") + 1
    body = re.split(r"^(?=\w)", text[start:], maxsplit=2, flags=re.MULTILINE)[1]
    parameters = {parameter.name: parameter for parameter in _parameters(body, "__init__")}
    for parameter in (*_parameters(body, "set_timesteps"), *_parameters(body, "step")):
        if parameter.type.base in SCALARS:
            parameters.setdefault(parameter.name, parameter)
    return Entry(
        kind="scheduler",
        name=name,
        file=file,
        line=text.count("\n", 0, start) + 1,
        qualname=cls,
        options=tuple(_option(parameter) for parameter in parameters.values() if _offered(parameter)),
        doc=f"{cls}{_audience(set(parameters))}",
        traits={},
        style="class",
        open=False,
        source=Source(file, f"diffusers.schedulers.scheduling_{module}", file.parent, by_path=False),
        refused=REFUSED,
    )


def other_name(word: str) -> str | None:
    """The option that is meant by another name of its class: ``UniPCMultistepScheduler``, ``unipc_multistep``."""
    plain = _squeezed(word.removeprefix(PREFIX).removeprefix("diffusers."))
    for name, (module, cls) in CLASSES.items():
        if plain in (_squeezed(name), _squeezed(module), _squeezed(cls)):
            return PREFIX + name
    return None


def _squeezed(word: str) -> str:
    return word.lower().replace("_", "").removesuffix("scheduler").removesuffix("discrete")


@cache
def _modules() -> dict[str, Path]:
    """The files ``scheduling_<module>.py`` of the installed diffusers."""
    spec = find_spec("diffusers")  # of a package at the top: found, not imported
    folders = (spec and spec.submodule_search_locations) or []
    files = [file for folder in folders for file in Path(folder, "schedulers").glob("scheduling_*.py")]
    return {file.stem.removeprefix("scheduling_"): file for file in files}


def _parameters(body: str, method: str) -> tuple[Parameter, ...]:
    """Those of a method, without ``self``. Only its head is parsed: whole files would take a second for ``--help``."""
    head = re.search(rf"^    def {method}\((.*?)\)(?: -> [^\n]*)?:\n", body, re.MULTILINE | re.DOTALL)
    if head is None:
        return ()
    (function,) = ast.parse(f"def head({head[1]}): ...").body
    assert isinstance(function, ast.FunctionDef)
    return from_ast(function.args, {}).without_self().parameters


def _offered(parameter: Parameter) -> bool:
    hidden = (*TRAINING, *WITHOUT_EFFECT, *NOT_OF_A_RUN)
    if parameter.name in hidden or parameter.default is MISSING or parameter.default is UNREADABLE:
        return False
    return parameter.type.base != "any"  # functions, schedulers, tensors: what no config can hold


def _option(parameter: Parameter) -> Option:
    kind = MISTYPED.get(parameter.name, parameter.type)
    return Option(parameter.name, replace(kind, optional=True), None, stands_for=parameter.default)


def _audience(parameters: set[str]) -> str:
    """Whom a class is for, as its own options tell."""
    if "sigma_data" in parameters:
        return ", for EDM models"
    kinds = {"beta_schedule", "trained_betas"} & parameters
    if "use_flow_sigmas" in parameters:
        return ", also for flow models"
    return "" if kinds else ", for flow models"
