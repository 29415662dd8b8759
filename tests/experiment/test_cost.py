"""What a run measures of itself."""

import importlib
import sys

import pytest
import torch

import diffexp.experiment
from diffexp.experiment import cost


def test_peak_memory_is_unknown_where_the_system_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows, which has no module ``resource``."""
    assert cost.peak_memory_mb(torch.device("cpu")) is not None
    monkeypatch.setattr(diffexp.experiment, "cost", cost)  # put back afterwards
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.delitem(sys.modules, "diffexp.experiment.cost")
    elsewhere = importlib.import_module("diffexp.experiment.cost")
    assert elsewhere.peak_memory_mb(torch.device("cpu")) is None
