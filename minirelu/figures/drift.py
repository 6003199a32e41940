"""Where weights and pre-activations move during training, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

from minirelu.errors import UserError, shown
from minirelu.figures.panels import Data, figure_data, line, panel
from minirelu.figures.usage_over_training import step_x
from minirelu.runs.run import Run, probes_of

PROBE_TOKENS = 512  # a part of the probe is enough for means, and a report stays quick
APART = 1.5  # steps at which it is measured, at least; the axis is logarithmic
_PANELS: dict[str, tuple[str, Data]] = {
    "mean_pre": ("mean pre-activation", {"label": "pre-activation"}),
    "mean_grad_on": (
        "mean gradient on those that are on",
        {"label": "10⁻⁶ nats per unit", "factor": 1e6},
    ),
    "mean_b_in": ("mean of the biases b_in", {"label": "bias"}),
    "mean_W_in": ("mean of the weights W_in", {"label": "weight, 10⁻³", "factor": 1e3}),
}


def drift(runs: Sequence[Run]) -> Data:
    """Means over the kept checkpoints, on a part of the probe; a panel for each quantity."""
    from minirelu.sparsity.drift import drift as measure

    (run,) = runs
    probes_of(run)
    kept = run.steps
    if not kept:
        raise UserError(f"{shown(run.folder)} keeps no weights to measure")
    steps = spread(kept)
    L, x = run.config.n_layers, step_x(runs)
    sequences = run.probe_tokens[: max(1, PROBE_TOKENS // run.config.n_ctx)]
    measured = [measure(run.params(step), sequences, run.config) for step in steps]
    panels = []
    for name, (title, y) in _PANELS.items():
        if name == "mean_b_in" and not run.config.bias:
            continue
        lines = [
            line(steps, [float(getattr(m, name)[l]) for m in measured], (l, L)) for l in range(L)
        ]
        panels.append(panel(lines, x, y, title))
    n_tokens = sequences[:, 1:].size
    title = f"Drift over training, at the kept checkpoints, on {n_tokens} tokens of the probe"
    return figure_data(title, panels, runs, columns=2)


def spread(steps: list[int]) -> list[int]:
    """Leave out steps that lie close together on a logarithmic axis; the last one always stays.

    >>> spread([0, 1, 2, 4, 8, 512, 550, 600, 650, 700])
    [0, 1, 2, 4, 8, 512, 700]
    """
    chosen = steps[:1]
    for step in steps[1:]:
        if step >= APART * chosen[-1] or step == steps[-1]:
            chosen.append(step)
    return chosen
