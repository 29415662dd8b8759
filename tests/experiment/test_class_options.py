"""Options of a plugin that is a class: what the user gives, then the checkpoint's config, then the class's default."""

import json

import pytest

import diffexp
from tests.checkpoints import save_unet, tiny_unet

PLUGIN = """
import torch
from diffexp import scheduler

@scheduler
class Mine:
    def __init__(self, num_train_timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02,
                 timestep_spacing: str = "leading"):
        self.kept = torch.cumprod(1 - torch.linspace(beta_start, beta_end, num_train_timesteps), dim=0)
        self.spacing, self.init_noise_sigma = timestep_spacing, 1.0

    def set_timesteps(self, num_inference_steps):
        last = 999 if self.spacing == "trailing" else 750
        self.timesteps = torch.linspace(last, 0, num_inference_steps).long()

    def step(self, model_output, timestep, sample):
        return (self.kept[timestep].sqrt() * sample - 0.1 * model_output,)
"""


@pytest.fixture
def plan_sha256(tmp_path, monkeypatch):
    """The hash of the plan that a run of the plugin makes, with a checkpoint whose config has trailing spacing."""
    checkpoint = save_unet(tmp_path / "checkpoint", tiny_unet(), timestep_spacing="trailing")
    (tmp_path / "mine.py").write_text(PLUGIN)
    monkeypatch.setenv("DIFFEXP_PLUGINS", str(tmp_path / "mine.py"))
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        common = ["model=hub", f"model.id={checkpoint}", "scheduler=mine", "steps=3", "num_samples=1"]
        result = diffexp.run([*common, "metric=none", "tracker=none", *words])
        return json.loads((result.folder / "run.json").read_text())["plan_sha256"]

    return run


def test_an_explicit_option_beats_the_checkpoint_even_where_it_is_the_default_of_the_class(plan_sha256):
    leading, trailing, unset = map(
        plan_sha256, ["scheduler.timestep_spacing=leading", "scheduler.timestep_spacing=trailing", "seed=0"]
    )
    assert unset == trailing, "what is not given is the checkpoint's"
    assert leading != trailing
