"""Use per batch against use per token: is a layer in another state than others, or only later?"""

from __future__ import annotations

from collections.abc import Sequence

from minirelu.errors import UserError
from minirelu.figures.panels import Data, figure_data, line, panel
from minirelu.figures.runs import check_comparable
from minirelu.figures.usage_over_training import SHARE_TO_ALL, batch_tokens
from minirelu.figures.width_and_depth import is_finished
from minirelu.runs.run import Run, measured, probes_of

SMALLEST = 1e-4  # of the shares per token that are shown


def phase(runs: Sequence[Run]) -> Data:
    """Of one run all probes, joined; of several the last ones, a point for each run and layer."""
    notes = check_comparable(runs, "per_batch")
    if len(runs) > 1:
        runs = [run for run in runs if is_finished(run)]
        if not runs:
            raise UserError("phase shows the ends of runs, and none of these is finished")
    layers = max(run.config.n_layers for run in runs)
    lines = []
    for run in runs:
        L = run.config.n_layers
        shown = probes_of(run)[:] if len(runs) == 1 else probes_of(run)[-1:]
        for l in range(L):
            token, batch = (
                [measured(probe, name, L)[l] for probe in shown]
                for name in ("per_token", "per_batch")
            )
            both = [
                (t, b)
                for t, b in zip(token, batch, strict=True)
                if t and t >= SMALLEST and b is not None
            ]
            if both:
                x, y = zip(*both, strict=True)
                look = "run 0" if len(runs) == 1 else "points"
                lines.append(line(x, y, (l, layers), look))
    if len(runs) > 1:
        notes.append(f"The ends of {len(runs)} runs.")
    else:
        notes.append("One run, from the right (step 0) to the left.")
    notes.append("Layers with less than 0.01 % on at a token are not shown.")
    ticks = [
        [0.0001, "0.01 %"],
        [0.001, "0.1 %"],
        [0.01, "1 %"],
        [0.05, "5 %"],
        [0.1, "10 %"],
        [0.5, "50 %"],
    ]
    x_axis = {"label": "share of hidden units on at a token", "scale": "log", "ticks": ticks}
    y_axis = {**SHARE_TO_ALL, "label": f"used in a batch of {batch_tokens(runs)} tokens"}
    title = "Use of a layer per batch against its use per token"
    return figure_data(title, [panel(lines, x_axis, y_axis)], runs, notes)
