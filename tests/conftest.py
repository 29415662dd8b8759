"""Every test runs offline and on one thread; what is set here is inherited by the processes that tests start."""

import os

# Before torch is imported: idle OpenMP threads that spin make tiny networks a hundred times slower.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "passive"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"
os.environ.pop("DIFFEXP_PLUGINS", None)

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("diffexp", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("diffexp")
