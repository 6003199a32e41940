"""Layer by training step: every share at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from minirelu.errors import UserError, shown
from minirelu.figures.panels import Data, figure_data, write_notes
from minirelu.figures.style import house_style, short
from minirelu.runs.run import Run, measured, probes_of
from minirelu.sparsity.measures import Measure, report_measures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_TICKS = 16


def heatmap(runs: Sequence[Run]) -> Data:
    """Collect every share of every layer and probe: ``z`` is (L, probes).

    Only shares, as all maps have one scale; and only what the run has measured.
    """
    (run,) = runs
    probes, L = probes_of(run), run.config.n_layers
    panels = [
        {
            "title": _title(measure, run.config.n_ctx, probes[-1]["batch_tokens"]),
            "steps": [p["step"] for p in probes],
            "tokens": [p["tokens"] for p in probes],
            "z": [[measured(p, measure.name, L)[l] for p in probes] for l in range(L)],
        }
        for measure in report_measures()
        if measure.is_share and any(measure.name in p for p in probes)
    ]
    if not panels:
        raise UserError(f"the probes of {shown(run.folder)} have no measure that is a share")
    return figure_data("Hidden units, layer by training step", panels, runs)


def _title(measure: Measure, n_ctx: int, batch_tokens: int) -> str:
    """Say what is measured, and in what the number depends on how it was.

    >>> from minirelu.sparsity.measures import MEASURES
    >>> _title(MEASURES["per_batch"], 16, 256)
    "units used in a batch (of 256 tokens): share of the layer's units"
    """
    sizes = {"n_ctx": f"n_ctx {n_ctx}", "batch": f"of {batch_tokens} tokens"}
    known = ", ".join(sizes[what] for what in measure.must_share if what in sizes)
    return f"{measure.what}{f' ({known})' if known else ''}: {measure.unit}"


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
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
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
    write_notes(figure, data["notes"])
    return figure
