"""Classes of diffusers as options ``scheduler=diffusers/<name>``, ``guidance=diffusers/<name>``, read and not imported.

A scheduler is listed if it compiles to a plan with all or all but one of its options. Others still run as
``scheduler=diffusers scheduler._target_=diffusers.X``. Excluded are: classes for tokens instead of numbers (Amused,
BlockRefinement, DiscreteDDIM, EntropyBound, VQDiffusion); those whose ``step`` needs more than an output and a sample
(HeliosDMD, KarrasVe, Piflow, RePaint, RFD4Proteina, ScoreSdeVe, ScoreSdeVp); those for networks that no other
scheduler fits (ConsistencyDecoder, DDPMWuerstchen, Helios, MiniMaxH3, SCM); and those whose noise is a path of
torchsde shared by the batch (CosineDPMSolverMultistep, DPMSolverSDE).
"""

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from diffexp.catalog import diffusers_guiders as guiders
from diffexp.catalog.entry import Entry
from diffexp.catalog.signatures import Parameter, from_ast
from diffexp.catalog.sources import Source
from diffexp.catalog.types import MISSING, SCALARS, UNREADABLE, Option, OptionType

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
"""Config entries that describe the training of the network: set by the model, never by an option."""

WITHOUT_EFFECT: tuple[str, ...] = (
    "base_shift",
    "max_shift",
    "base_image_seq_len",
    "max_image_seq_len",
    "scale_factors",
    "upscale_mode",
)
"""Config entries that only pipelines of diffusers read, or that change the size of the sample."""

REFUSED: Mapping[str, str] = {
    **dict.fromkeys(TRAINING, "is how the model was trained, which a scheduler does not change"),
    **dict.fromkeys(WITHOUT_EFFECT, "is for diffusers' own pipelines; it would have no effect here"),
}
"""Options that are refused, with the end of the message about them."""

NOT_OF_A_RUN = ("num_inference_steps", "timesteps", "sigmas", "device", "return_dict", "prev_timestep", "solver_p")

MISTYPED = {"mu": OptionType("float"), "sigma_max": OptionType("float"), "shift_terminal": OptionType("float")}
"""Types where some annotations of diffusers are wrong (``sigma_max: bool | None``)."""


@dataclass(frozen=True)
class Family:
    """The classes of one kind."""

    folder: str
    """Subpackage of diffusers."""
    prefix: str
    """Prefix of the module names."""
    ending: str
    """Suffix of the class names, in lower case."""
    classes: Mapping[str, tuple[str, str]]
    refused: Mapping[str, str]
    """Options of the classes that must not be given, each with the reason."""
    methods: Sequence[str]
    """Methods whose parameters are options besides those of ``__init__``."""
    option: Callable[[Parameter], Option | None]
    """The option of a parameter; None for a parameter that is not an option."""
    summary: Callable[[str, str, set[str]], str]
    """One line about a class, from the name of the option, that of the class and those of its parameters."""
    excluded: Mapping[str, str] = field(default_factory=dict)
    """Classes that are not options, each with the reason."""


def class_names(kind: str) -> list[str]:
    """Names ``diffusers/<name>`` of the classes of a kind in the installed diffusers."""
    found = FAMILIES.get(kind)
    return [PREFIX + name for name, (module, _) in found.classes.items() if module in _modules(kind)] if found else []


@cache
def class_entry(kind: str, name: str) -> Entry | None:
    """The entry of an option ``diffusers/<name>``; None where there is no such class.

    Options of a scheduler are null by default: the value in the model's scheduler config, else the class's default.
    """
    if kind not in FAMILIES or not name.startswith(PREFIX):
        return None
    family, short = FAMILIES[kind], name.removeprefix(PREFIX)
    module, cls = family.classes.get(short, ("", ""))
    if module not in _modules(kind):
        return None
    file = _modules(kind)[module]
    text = file.read_text(encoding="utf-8")
    start = text.index(f"\nclass {cls}(") + 1
    body = re.split(r"^(?=\w)", text[start:], maxsplit=2, flags=re.MULTILINE)[1]
    parameters = {parameter.name: parameter for parameter in _parameters(body, "__init__")}
    for parameter in (parameter for method in family.methods for parameter in _parameters(body, method)):
        if parameter.type.base in SCALARS:
            parameters.setdefault(parameter.name, parameter)
    options = [family.option(parameter) for parameter in parameters.values() if parameter.name not in family.refused]
    return Entry(
        kind=kind,
        name=name,
        file=file,
        line=text.count("\n", 0, start) + 1,
        qualname=cls,
        options=tuple(option for option in options if option is not None),
        doc=family.summary(short, cls, set(parameters)),
        traits={"stepwise": True, "requires": guiders.REQUIRES.get(short, ())} if kind == "guidance" else {},
        style="class",
        accepts_any_option=False,
        source=Source(file, f"diffusers.{family.folder}.{family.prefix}{module}", file.parent, by_path=False),
        refused=family.refused,
    )


def alias_of(kind: str, word: str) -> str | None:
    """The option with another spelling of its class, such as ``UniPCMultistepScheduler`` or ``unipc_multistep``."""
    family = FAMILIES.get(kind)
    if family is None:
        return None
    wanted = _normalized(word, family)
    for name, (module, cls) in family.classes.items():
        if wanted in (_normalized(name, family), _normalized(module, family), _normalized(cls, family)):
            return PREFIX + name
    return None


def why_excluded(kind: str, word: str) -> str | None:
    """Why a class of diffusers is not an option, as a sentence; None for other words."""
    family = FAMILIES.get(kind)
    names = family.excluded if family else {}
    return next((f"{cls} {why}" for cls, why in names.items() if family and _matches(word, cls, family)), None)


def _matches(word: str, cls: str, family: Family) -> bool:
    initials = "".join(filter(str.isupper, cls)).lower()
    return _normalized(word, family) in (_normalized(cls, family), initials)


def _normalized(word: str, family: Family) -> str:
    name = word.removeprefix(PREFIX).removeprefix("diffusers.").lower().replace("_", "")
    return name.removesuffix(family.ending).removesuffix("discrete")


@cache
def _modules(kind: str) -> dict[str, Path]:
    """The modules of a kind in the installed diffusers: name without the prefix, and file."""
    family, spec = FAMILIES[kind], find_spec("diffusers")  # of a package at the top: found, not imported
    folders = (spec and spec.submodule_search_locations) or []
    files = [file for folder in folders for file in Path(folder, family.folder).glob(f"{family.prefix}*.py")]
    return {file.stem.removeprefix(family.prefix): file for file in files}


def _parameters(body: str, method: str) -> tuple[Parameter, ...]:
    """Parameters of a method, without ``self``. Only its head is parsed; whole files take a second for ``--help``."""
    head = re.search(rf"^    def {method}\((.*?)\)(?: -> [^\n]*)?:\n", body, re.MULTILINE | re.DOTALL)
    if head is None:
        return ()
    (function,) = ast.parse(f"def head({head[1]}): ...").body
    assert isinstance(function, ast.FunctionDef)
    return from_ast(function.args, {}).without_self().parameters


def _option_of_scheduler(parameter: Parameter) -> Option | None:
    if parameter.name in NOT_OF_A_RUN or parameter.default is MISSING or parameter.default is UNREADABLE:
        return None
    if parameter.type.base == "any":  # functions, schedulers, tensors: what no config can hold
        return None
    kind = MISTYPED.get(parameter.name, parameter.type)
    return Option(parameter.name, kind, parameter.default).null_by_default()


def _option_of_guider(parameter: Parameter) -> Option:
    return Option(parameter.name, guiders.MISTYPED.get(parameter.name, parameter.type), parameter.default)


def _scheduler_summary(short: str, cls: str, parameters: set[str]) -> str:
    """The class name, and the models that the scheduler is for, derived from its options."""
    if "sigma_data" in parameters:
        return f"{cls}, for EDM models"
    kinds = {"beta_schedule", "trained_betas"} & parameters
    if "use_flow_sigmas" in parameters:
        return f"{cls}, also for flow models"
    return cls if kinds else f"{cls}, for flow models"


FAMILIES: Mapping[str, Family] = {
    "scheduler": Family(
        folder="schedulers",
        prefix="scheduling_",
        ending="scheduler",
        classes=CLASSES,
        refused=REFUSED,
        methods=("set_timesteps", "step"),
        option=_option_of_scheduler,
        summary=_scheduler_summary,
    ),
    "guidance": Family(
        folder="guiders",
        prefix="",
        ending="guidance",
        classes=guiders.CLASSES,
        refused=guiders.REFUSED,
        methods=(),
        option=_option_of_guider,
        summary=lambda short, cls, parameters: f"{cls}: {guiders.PAPERS[short]}",
        excluded=guiders.EXCLUDED,
    ),
}
