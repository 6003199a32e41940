"""Figures 1, 2a, 2b and 5 of Wild & Anderson 2024: use of hidden units, layer by layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from minirelu.errors import UserError, command, shown
from minirelu.figures.style import (
    house_style,
    layer_colors,
    layer_labels,
    new_figure,
    step_axis,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from minirelu.training.run import Run

EARLY_STEPS = 128  # what figures 2a and 2b show


def fig1(run: Run) -> Figure:
    """Share of units used per batch, over training."""
    batch = probes_of(run)[-1]["batch_tokens"]
    return _by_layer(run, "per_batch", f"Hidden units used in a batch of {batch} tokens")


def fig2a(run: Run) -> Figure:
    """Share of units on at a token, early in training."""
    return _by_layer(
        run,
        "per_token",
        f"Hidden units on at a token, first {EARLY_STEPS} steps",
        until=EARLY_STEPS,
    )


def fig2b(run: Run) -> Figure:
    """Median in-sequence frequency of used units, early in training."""
    return _by_layer(
        run,
        "median_in_sequence_used",
        f"How steadily the median used unit is on, first {EARLY_STEPS} steps",
        ylabel="share of a sequence's positions",
        until=EARLY_STEPS,
    )


def fig5(run: Run) -> Figure:
    """Share of units on at a token, the whole run."""
    return _by_layer(run, "per_token", "Hidden units on at a token, whole run", log=False)


def probes_of(run: Run) -> list[dict]:
    """All probes of a run, or an error that says there are none."""
    probes = run.probes()
    if not probes:
        raise UserError(
            f"{shown(run.folder)} has no probes yet; train it: "
            f"{command('train --resume', run.folder)}"
        )
    return probes


@house_style
def _by_layer(
    run: Run,
    measure: str,
    title: str,
    ylabel: str = "share of the layer's units",
    until: int | None = None,
    log: bool = True,
) -> Figure:
    probes = [p for p in probes_of(run) if until is None or p["step"] <= until]
    steps = [p["step"] for p in probes]
    n_layers = run.config.n_layers
    figure, axes = new_figure(title)
    for l, (color, label) in enumerate(
        zip(layer_colors(n_layers), layer_labels(n_layers), strict=True)
    ):
        # null in the records: the measure does not exist, no unit was used
        values = [math.nan if p[measure][l] is None else 100 * p[measure][l] for p in probes]
        axes.plot(steps, values, color=color, label=label, marker="o", clip_on=False)
    axes.set_ylabel(ylabel)
    axes.yaxis.set_major_formatter("{x:.0f} %")
    axes.set_ylim(0, None)
    if measure == "per_batch":
        axes.set_ylim(0, 104)
    step_axis(axes, run.settings.train.batch_size * run.config.n_ctx, max(1, steps[-1]), log)
    figure.legend(loc="outside right center", frameon=False)
    return figure
