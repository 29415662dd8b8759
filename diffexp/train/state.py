"""Checkpoints of a training run: written whole or not at all, and picked up again on the next start."""

import logging
from pathlib import Path
from typing import Any

import torch

from diffexp.files import replace_whole

log = logging.getLogger(__name__)


def save_state(path: Path, **parts: Any) -> None:
    """Write the ``state_dict`` of every part (plain numbers as they are) to ``path``."""
    state = {name: part.state_dict() if hasattr(part, "state_dict") else part for name, part in parts.items()}
    with replace_whole(path) as temporary:
        torch.save(state, temporary)


def load_state(path: Path, **parts: Any) -> int:
    """Restore every part from ``path``; the number of steps already done, 0 where there is no checkpoint."""
    if not path.is_file():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    log.info("going on from %s at step %d", path, state["step"])
    return int(state["step"])
