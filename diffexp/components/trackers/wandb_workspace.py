"""A saved view of a sweep at Weights & Biases, with the panels that compare its runs; needs wandb-workspaces."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from diffexp.components.trackers.base import Comparison

if TYPE_CHECKING:
    import wandb

log = logging.getLogger(__name__)

STEPS = ("x0_change_rms", "x_std", "clipped_share", "sigma")
"""Scalars of the solver's steps that have a chart."""


def save_workspace(run: wandb.Run, comparison: Comparison) -> None:
    """Save the view of the sweep that ``run`` compares, and log its address.

    An error costs the view alone, and is one line.
    """
    try:
        view = workspace(run.entity, run.project, run.group or "", comparison)
        view.save()
        log.info("W&B workspace of the sweep: %s", view.url)
    except Exception as error:
        log.warning("no W&B workspace: %s", str(error).partition("\n")[0] or type(error).__name__)
        log.debug("its traceback", exc_info=True)


def workspace(entity: str, project: str, group: str, comparison: Comparison) -> Any:
    """The view: quality over cost, metrics over samples, scalars of the steps, images; of the runs of one group."""
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as views

    charts: list[Any] = [
        panels.ScatterPlot(title=curves.title, x=curves.cost, y=curves.metric)
        for curves in comparison.curves
        if curves.cost
    ]
    over_samples: list[Any] = [
        panels.LinePlot(title=name, x="samples_done", y=[name])
        for name in dict.fromkeys(curves.metric for curves in comparison.curves)
        if name
    ]
    of_steps: list[Any] = [panels.LinePlot(title=name, x="steps/step", y=[f"steps/{name}"]) for name in STEPS]
    images: list[Any] = [
        panels.MediaBrowser(title=title, media_keys=[key], num_columns=4)
        for title, key in (("predicted x0 by step", "steps/x0"), ("samples", "samples"), ("grid", "pictures/grid"))
    ]
    return views.Workspace(
        entity=entity,
        project=project,
        name=f"sweep {group}",
        sections=[
            views.Section(name="Quality over cost", panels=charts, is_open=True),
            views.Section(name="Images", panels=images, is_open=True),
            views.Section(name="Metrics over samples", panels=over_samples),
            views.Section(name="Steps", panels=of_steps),
        ],
        runset_settings=views.RunsetSettings(filters=[views.Metric("Group") == group]),
    )
