"""diffexp: experiments with diffusion schedulers and pipelines.

The public names, for plugins and notebooks: ``from diffexp import Levels, compile, run, scheduler``. Two more doors
lead to what is needed less often: ``diffexp.testing`` and ``diffexp.plan.adapter``.
"""

# Nothing is imported here: names are looked up on first use, so that the command answers at once and so that
# `python -m diffexp` can take the working folder off sys.path before any standard module is imported.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from diffexp.api import compile as compile
    from diffexp.catalog.discover import discover as discover
    from diffexp.catalog.register import (
        grid as grid,
        guidance as guidance,
        loop as loop,
        metric as metric,
        model as model,
        scheduler as scheduler,
        tracker as tracker,
    )
    from diffexp.cli.python import run as run, sweep as sweep
    from diffexp.components.grids import (
        at_sigmas as at_sigmas,
        check_steps as check_steps,
        karras as karras,
        leading as leading,
        linspace as linspace,
        sigma_range as sigma_range,
        trailing as trailing,
    )
    from diffexp.components.guidance.base import Predict as Predict, both_sides as both_sides, per_sample as per_sample
    from diffexp.components.loops.base import Batch as Batch
    from diffexp.components.media import Media as Media
    from diffexp.components.metrics.applicability import no_images as no_images
    from diffexp.components.metrics.base import Finished as Finished, RunFacts as RunFacts
    from diffexp.components.metrics.features import load_features as load_features
    from diffexp.components.metrics.half_samples import Estimate as Estimate, estimate as estimate, mean_of as mean_of
    from diffexp.components.models.base import (
        Condition as Condition,
        Model as Model,
        ModelBase as ModelBase,
        Request as Request,
        Runtime as Runtime,
        encode_images as encode_images,
    )
    from diffexp.components.models.emoji import emoji as emoji, emoji_folder as emoji_folder
    from diffexp.components.models.exact import (
        ExactModel as ExactModel,
        exact_dtype as exact_dtype,
        exact_training as exact_training,
    )
    from diffexp.components.models.gaussian import gaussian as gaussian
    from diffexp.components.models.hub import hub as hub
    from diffexp.components.models.mixture import MixtureModel as MixtureModel, mixture as mixture
    from diffexp.components.models.mnist import mnist as mnist
    from diffexp.components.pixels import quantized as quantized, to_image as to_image, to_tensor as to_tensor
    from diffexp.components.plan_files import load_plan as load_plan
    from diffexp.components.sampler import build_sampler as build_sampler
    from diffexp.components.trackers.base import Comparison as Comparison, RunInfo as RunInfo, SampleRow as SampleRow
    from diffexp.components.user_files import read_images as read_images
    from diffexp.drawing import Drawing as Drawing
    from diffexp.errors import InputError as InputError
    from diffexp.experiment.result import RunResult as RunResult
    from diffexp.experiment.sample_files import read_samples as read_samples
    from diffexp.plan.compile import Direct as Direct, Sampler as Sampler, sample as sample
    from diffexp.plan.execute import (
        History as History,
        advance as advance,
        begin as begin,
        clamped as clamped,
        execute as execute,
    )
    from diffexp.plan.levels import CLEAN as CLEAN, Level as Level, Levels as Levels, Schedule as Schedule
    from diffexp.plan.method import Denoiser as Denoiser
    from diffexp.plan.moments import gaussian_output as gaussian_output
    from diffexp.plan.noise import SampleNoise as SampleNoise, sample_seed as sample_seed
    from diffexp.plan.predictions import Clip as Clip, Prediction as Prediction
    from diffexp.plan.row import Row as Row
    from diffexp.plan.schedules import FlowSchedule as FlowSchedule, VESchedule as VESchedule, VPSchedule as VPSchedule
    from diffexp.plan.table import Plan as Plan
    from diffexp.plan.trace import NotLinear as NotLinear
    from diffexp.plan.training import Training as Training
    from diffexp.report import write_chart as write_chart, write_report as write_report
    from diffexp.report.runs import Runs as Runs, load as load
    from diffexp.report.sweep_result import SweepResult as SweepResult
    from diffexp.report.tables import write_table as write_table

_PUBLIC = {
    "diffexp.api": "compile",
    "diffexp.catalog.discover": "discover",
    "diffexp.catalog.register": "grid guidance loop metric model scheduler tracker",
    "diffexp.cli.python": "run sweep",
    "diffexp.components.grids": "at_sigmas check_steps karras leading linspace sigma_range trailing",
    "diffexp.components.guidance.base": "Predict both_sides per_sample",
    "diffexp.components.loops.base": "Batch",
    "diffexp.components.metrics.applicability": "no_images",
    "diffexp.components.media": "Media",
    "diffexp.components.metrics.base": "Finished RunFacts",
    "diffexp.components.metrics.half_samples": "Estimate estimate mean_of",
    "diffexp.components.metrics.features": "load_features",
    "diffexp.components.models.base": "Condition Model ModelBase Request Runtime encode_images",
    "diffexp.components.models.emoji": "emoji emoji_folder",
    "diffexp.components.models.exact": "ExactModel exact_dtype exact_training",
    "diffexp.components.models.gaussian": "gaussian",
    "diffexp.components.models.hub": "hub",
    "diffexp.components.models.mixture": "MixtureModel mixture",
    "diffexp.components.models.mnist": "mnist",
    "diffexp.components.pixels": "quantized to_image to_tensor",
    "diffexp.components.plan_files": "load_plan",
    "diffexp.components.sampler": "build_sampler",
    "diffexp.components.trackers.base": "Comparison RunInfo SampleRow",
    "diffexp.components.user_files": "read_images",
    "diffexp.drawing": "Drawing",
    "diffexp.errors": "InputError",
    "diffexp.experiment.result": "RunResult",
    "diffexp.experiment.sample_files": "read_samples",
    "diffexp.plan.compile": "Direct Sampler sample",
    "diffexp.plan.execute": "History advance begin clamped execute",
    "diffexp.plan.levels": "CLEAN Level Levels Schedule",
    "diffexp.plan.method": "Denoiser",
    "diffexp.plan.moments": "gaussian_output",
    "diffexp.plan.noise": "SampleNoise sample_seed",
    "diffexp.plan.predictions": "Clip Prediction",
    "diffexp.plan.row": "Row",
    "diffexp.plan.schedules": "FlowSchedule VESchedule VPSchedule",
    "diffexp.plan.table": "Plan",
    "diffexp.plan.trace": "NotLinear",
    "diffexp.plan.training": "Training",
    "diffexp.report": "write_chart write_report",
    "diffexp.report.runs": "Runs load",
    "diffexp.report.sweep_result": "SweepResult",
    "diffexp.report.tables": "write_table",
}
"""Module to the names that it defines."""
_HOMES = {name: home for home, names in _PUBLIC.items() for name in names.split()}

if not TYPE_CHECKING:
    __all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'diffexp' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
