"""Kinds of model: what the network predicts, clipping of its x0 estimate, and the noise schedule it was trained with."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from diffexp.certify.bindings import OfClass
from diffexp.certify.bound import Bound
from diffexp.certify.cases import FLOW, VP, Case
from diffexp.certify.checks.behaviour import CONSISTENCY
from diffexp.certify.checks.order import DATA, lacks_order
from diffexp.certify.checks.point_data import exact_on_points
from diffexp.certify.defects import point_defects
from diffexp.certify.outcome import Outcome, failed, passed, skipped, warned
from diffexp.certify.runs import Points, random_points
from diffexp.certify.spacing import EVEN
from diffexp.certify.subject import Subject
from diffexp.components.schedulers.foreign.diffusers_config import Accepted
from diffexp.errors import InputError
from diffexp.plan.moments import POINT, Gaussian
from diffexp.plan.predictions import Clip, Preconditioned, Prediction, Target

STEPS = 10
SAME, SINGLE = 1e-7, 1e-4
"""How much the moments of a run may change with the prediction type; classes compute in float32."""
LIMIT = 0.8
"""Of clipping: another one than 1, which code may have written out."""
BEYOND = 3.0
"""Largest x0 of the data that is clipped."""
BOTH = Gaussian(torch.cat([POINT.mean, DATA.mean]), torch.cat([POINT.variances, DATA.variances]))


def predictions(subject: Subject) -> Outcome:
    """The same samples for networks that predict the noise, x0, v or the flow's velocity: the model is the same."""
    if subject.consistency:
        return skipped(CONSISTENCY)
    found: list[str] = []
    for case in subject.kinds:
        types = _types(subject, case)
        if len(types) < 2:
            continue
        moments, errors, notes = _by_type(subject, case, types)
        found += [name for name in moments if name not in found]
        wrong = _unlike(moments, errors, SINGLE if subject.is_class else SAME)
        if wrong:
            right = [name for name in moments if name not in wrong]
            shown = " and ".join(f"{name} (off by {size:.1e})" for name, size in wrong.items())
            known = f", right with {', '.join(right)}" if right else ""
            return failed(f"wrong for networks that predict {shown} on {case.training_name} levels{known}", wrong=wrong)
        if notes:
            return failed(f"raises for networks that predict {notes[0]}")
    if not found:
        return skipped("is for one prediction type")
    return passed(f"the same samples with {', '.join(found)}")
