"""The kinds of model that a scheduler is certified on."""

from dataclasses import dataclass

from diffexp.components.models.exact import PredictionName, ScheduleName, exact_training
from diffexp.plan.predictions import Prediction
from diffexp.plan.schedules import VPSchedule
from diffexp.plan.training import Training


@dataclass(frozen=True, eq=False)
class Case:
    """One kind of model, and the timestep schedule that is usual for it."""

    name: str
    training: Training
    grid: str


def _case(name: ScheduleName, grid: str, prediction: PredictionName | None = None) -> Case:
    label = f"{name}, {prediction}" if prediction else name
    return Case(label, exact_training(name, prediction), grid)


VP, VE, EDM, FLOW = _case("vp", "exponential"), _case("ve", "karras"), _case("edm", "karras"), _case("flow", "flow")

VELOCITY = _case("vp", "exponential", "v_prediction")

ZERO_SNR = Case(
    "zero terminal SNR",
    Training(VPSchedule.from_betas(rescale_betas_zero_snr=True), Prediction.V, spacing="trailing"),
    "trailing",
)

CASES = {case.name: case for case in (VP, VE, EDM, FLOW)}
