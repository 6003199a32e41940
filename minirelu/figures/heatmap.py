"""Layer by training step: every measure at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from minirelu.figures.panels import Data, figure_data
from minirelu.figures.runs import facts, probes_of
from minirelu.figures.style import house_style, short
from minirelu.runs.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_TICKS = 16


def heatmap(runs: Sequence[Run]) -> Data:
    """Collect the four measures of every layer and probe: ``z`` is (L, probes)."""
    (run,) = runs
    probes = probes_of(run)
    titles = {
        "per_token": "on at a token: share of units",
        "per_sequence": f"used in a sequence of {run.config.n_ctx} tokens: share of units",
        "per_batch": f"used in a batch of {probes[-1]['batch_tokens']} tokens: share of units",
        "median_in_sequence_used": "median used unit is on at: share of a sequence's positions",
    }
    panels = [
        {
            "title": title,
            "steps": [p["step"] for p in probes],
            "tokens": [p["tokens"] for p in probes],
            "z": [[p[measure][l] for p in probes] for l in range(run.config.n_layers)],
        }
        for measure, title in titles.items()
    ]
    return figure_data("Hidden units, layer by training step", panels, [facts(run)])


@house_style
def draw_heatmap(data: Data) -> Figure:
    """Draw one map for each measure, all on the same scale of colours."""
    import numpy as np
    from matplotlib.figure import Figure

    panels = data["panels"]
    n_layers, n_probes = np.shape(panels[0]["z"])
    height = max(1.1, 0.22 * n_layers)
    figure = Figure(figsize=(7.2, 1.4 + (height + 0.4) * len(panels)), layout="constrained")
    figure.suptitle(data["title"], x=0.01, ha="left", fontsize=12)
    grid = figure.subplots(len(panels), 1, sharex=True)
    stride = -(-n_probes // _MOST_TICKS)
    ticks = list(range(n_probes - 1, -1, -stride))[::-1]  # the last one always
    for axes, what in zip(grid, panels, strict=True):
        z = np.array(what["z"], dtype=float)
        image = axes.imshow(z, cmap="Blues", vmin=0, vmax=1, aspect="auto", origin="lower")
        axes.grid(False)
        axes.set_title(what["title"], fontsize=10)
        axes.set_ylabel("layer")
        axes.set_yticks(range(0, n_layers, -(-n_layers // 8)))
        axes.set_facecolor("#dddddd")  # where a measure does not exist
    grid[-1].set_xticks(ticks, [str(panels[0]["steps"][i]) for i in ticks])
    grid[-1].tick_params(axis="x", labelsize=9)
    grid[-1].set_xlabel("training step (one column for each probe)")
    top = grid[0].secondary_xaxis("top")
    top.set_xticks(ticks, [short(panels[0]["tokens"][i]) for i in ticks])
    top.tick_params(labelsize=8)
    top.set_xlabel("training tokens", fontsize=9)
    bar = figure.colorbar(image, ax=list(grid), aspect=40, pad=0.02)
    bar.ax.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    return figure
