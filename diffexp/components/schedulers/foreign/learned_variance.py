"""Networks that predict the variance of a step too (Nichol & Dhariwal 2021, arXiv:2102.09672), and who reads it."""

import inspect
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from diffexp.plan.compile import Sampler
from diffexp.plan.table import Plan
from diffexp.plan.training import Training

log = logging.getLogger(__name__)


def takes_variance(scheduler: Any, names: Sequence[str], training: Training, options: Mapping[str, Any]) -> bool:
    """Whether a class of diffusers, or a function that equals one, takes the variance that the network predicts.

    Args:
        scheduler: the class or function.
        names: classes that the function equals.
        training: of the network.
        options: of the scheduler; one about its variance goes before.
    """
    if training.learned_variance != "learned_range" or {"variance", "variance_type"} & options.keys():
        return False
    import diffusers  # seconds

    classes = [scheduler] if isinstance(scheduler, type) else [getattr(diffusers, name, None) for name in names]
    methods = [method for cls in classes if (method := getattr(cls, "_get_variance", None))]
    return any("predicted_variance" in inspect.signature(method).parameters for method in methods)


def warn_of_variance(sampler: Sampler, training: Training, takes: bool) -> None:
    """Log that a predicted variance is not used where noise is drawn; ``takes``: whether the scheduler would."""
    draws = isinstance(sampler, Plan) and any(any(row.z) for row in sampler.rows)
    if training.learned_variance and (takes or draws):
        log.warning(
            "noise has the scheduler's own variance: the one that the network predicts (variance_type=%s) is not used, "
            "so that samples differ from those of the checkpoint's pipeline%s",
            training.learned_variance,
            "; loop=pipeline uses it" if takes else "",
        )
