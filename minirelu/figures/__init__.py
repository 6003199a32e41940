"""Figures: for each, one function from runs to its data, and one that draws this data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from minirelu.errors import UserError, nearest
from minirelu.figures import (
    deaths,
    drift,
    heatmap,
    in_sequence,
    ladder,
    loss,
    phase,
    price,
    raster,
    specificity,
    units,
    usage_over_training,
    wake,
    width_and_depth,
)
from minirelu.figures.captions import CAPTIONS
from minirelu.figures.panels import Data, draw_panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from minirelu.runs.run import Run

ONE, ANY, SWEEP = "one run", "one run, or several", "several runs, or a sweep's folder"
HISTORY = "one run with a history of its units"
WOKEN = "one run, after minirelu wake"
MEASURED = "one run, or several, after minirelu specificity"


class Kind(NamedTuple):
    """A kind of figure: ``draw(data(runs))`` is one of it.

    ``what`` says in a line what it shows, ``takes`` which runs it needs.
    """

    what: str
    data: Callable[..., Data]  # from a sequence of runs
    takes: str
    draw: Callable[[Data], Figure] = draw_panels

    def check(self, name: str, n_runs: int) -> None:
        """Raise where the number of runs does not fit."""
        one = self.takes in (ONE, HISTORY, WOKEN)
        if n_runs < 1 or (one and n_runs > 1) or (self.takes == SWEEP and n_runs < 2):
            raise UserError(f"{name} takes {self.takes}; {n_runs} given")


# The report shows those of one run, in this order.
KINDS: dict[str, Kind] = {
    "fig1": Kind("units used per batch, over training (paper)", usage_over_training.fig1, ANY),
    "fig2a": Kind("units on per token, early (paper)", usage_over_training.fig2a, ANY),
    "fig2b": Kind(
        "how steadily the median unit fires, early (paper)", usage_over_training.fig2b, ANY
    ),
    "fig3": Kind("units used by width d_mlp (paper)", width_and_depth.fig3, SWEEP),
    "fig4": Kind("units used by depth n_layers (paper)", width_and_depth.fig4, SWEEP),
    "price": Kind("what a setting costs: loss, use, silence, time", price.price, SWEEP),
    "ladder": Kind("what a setting changes, by layer", ladder.ladder, SWEEP),
    "phase": Kind("use per batch against use per token, by layer", phase.phase, ANY),
    "fig5": Kind("units on per token, whole run (paper)", usage_over_training.fig5, ANY),
    "loss": Kind("loss against its baselines", loss.loss, ANY),
    "loss_and_use": Kind("loss beside units on per token", loss.loss_and_use, ONE),
    "early": Kind("the first steps, close up", usage_over_training.early, ANY),
    "heatmap": Kind(
        "layer by training step, for each measure", heatmap.heatmap, ONE, heatmap.draw_heatmap
    ),
    "fan": Kind("percentiles of in-sequence frequency, over training", in_sequence.fan, ONE),
    "frequencies": Kind(
        "how many units fire how often, and how many never", units.frequencies, ONE
    ),
    "rarefaction": Kind("units seen against tokens read", units.rarefaction, ONE),
    "reuse": Kind("units that a sequence has not used yet", in_sequence.reuse, ONE),
    "drift": Kind("where pre-activations and weights move", drift.drift, ONE),
    "silence": Kind("units silent and dead, over training", deaths.silence, HISTORY),
    "survival": Kind("how many units have not died yet", deaths.survival, HISTORY),
    "hazard": Kind("how fast units die, beside the learning rate", deaths.hazard, HISTORY),
    "raster": Kind("the life of every unit", raster.raster, HISTORY, raster.draw_raster),
    "wake": Kind("which silent units a text can wake", wake.wake, WOKEN),
    "specificity": Kind("what units respond to, by layer", specificity.specificity, MEASURED),
}


def kind_of(name: str) -> Kind:
    """Return a kind of figure by its name, or raise naming the nearest one."""
    if name not in KINDS:
        raise UserError(f"no figure {name!r}{nearest(name, KINDS)}; there are {', '.join(KINDS)}")
    return KINDS[name]


def _of_one_run(kind: Kind) -> Callable[[Run], Figure]:
    return lambda run: kind.draw(kind.data([run]))


def _drawn_for(*takes: str) -> dict[str, tuple[Callable[[Run], Figure], str]]:
    """Name to the function that draws it for a run, and how to read it."""
    return {
        name: (_of_one_run(kind), CAPTIONS[name])
        for name, kind in KINDS.items()
        if kind.takes in takes
    }


# What the report of every run shows, of one with a history, and after minirelu wake, specificity.
FIGURES, OF_HISTORY = _drawn_for(ONE, ANY), _drawn_for(HISTORY)
OF_WOKEN, OF_MEASURED = _drawn_for(WOKEN), _drawn_for(MEASURED)


def figures_of(run: Run) -> dict[str, tuple[Callable[[Run], Figure], str]]:
    """What the report of a run shows."""
    shown = FIGURES | (OF_HISTORY if run.has_history else {})
    shown |= OF_WOKEN if (run.folder / "death" / "wake.json").is_file() else {}
    return shown | (OF_MEASURED if (run.folder / "specificity.json").is_file() else {})


def draw_all(run: Run, folder: Path) -> dict[str, Path]:
    """Draw every figure as PNG and SVG into a folder; return the PNG files by name.

    A figure for which a run lacks the data (made by an earlier version, files removed) is a
    sentence that says so.
    """
    from minirelu.figures.style import not_drawn, save
    from minirelu.runs.run import probes_of

    probes_of(run)  # without any, there is nothing to draw
    pictures = {}
    for name, (draw, _) in figures_of(run).items():
        try:
            figure = draw(run)
        except UserError as e:
            figure = not_drawn(f"{name} is left out: {e}")
        pictures[name] = save(figure, folder / name)
    return pictures
