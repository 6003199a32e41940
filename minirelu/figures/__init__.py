"""Figures: each a function from a run to a matplotlib figure, in one house style."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from minirelu.figures import loss, usage_over_training

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from minirelu.training.run import Run

# Name, and two sentences on how to read it; the report shows them in this order.
FIGURES: dict[str, tuple[Callable[[Run], Figure], str]] = {
    "fig1": (
        usage_over_training.fig1,
        "Each line is a layer: the share of its hidden units that were on at one or more of the "
        "tokens of a batch; what is missing to 100 % was silent on the whole batch. Where the "
        "lines part, layers go different ways (figure 1 of the paper).",
    ),
    "fig2a": (
        usage_over_training.fig2a,
        "The first steps, close up: the share of hidden units that are on at one token, on "
        "average. An untrained ReLU is on half of the time, so all lines start near 50 % (figure "
        "2a of the paper).",
    ),
    "fig2b": (
        usage_over_training.fig2b,
        "Of the units that a sequence uses at all, the one in the middle: at which share of the "
        "sequence's positions is it on? High means that units fire steadily through a text, low "
        "that they respond to single tokens (figure 2b of the paper).",
    ),
    "fig5": (
        usage_over_training.fig5,
        "As figure 2a, over the whole run and with even steps. Where a line flattens, the layer "
        "has settled; where it still falls, a longer run would be sparser (figure 5 of the "
        "paper).",
    ),
    "loss": (
        loss.loss,
        "How surprised the model is by the next token, in nats: dots on the probe, line on the "
        "training batches. Below the dashed lines it has learned more than how frequent tokens "
        "are (unigram), and more than which token follows which (bigram).",
    ),
}


def draw_all(run: Run, folder: Path) -> dict[str, Path]:
    """Draw every figure as PNG and SVG into a folder; return the PNG files by name."""
    from minirelu.figures.style import save

    return {name: save(draw(run), folder / name) for name, (draw, _) in FIGURES.items()}
