"""Inside a sequence: how steadily units fire over training, and how new tokens bring new units."""

from __future__ import annotations

from collections.abc import Sequence

from minirelu.figures.panels import Data, figure_data, line, panel
from minirelu.figures.usage_over_training import MEDIAN, step_x
from minirelu.runs.run import Run, probes_of

# Percentile to its look; the fan is shaded from the first to the last, and within the inner two.
_PERCENTILES = {
    5: "thin dotted",
    25: "thin",
    50: "run 0",
    75: "thin",
    95: "thin dotted",
}


def fan(runs: Sequence[Run]) -> Data:
    """Percentiles of in-sequence frequency of used units, over training; a panel for each layer."""
    from minirelu.sparsity.usage import in_sequence_percentile

    (run,) = runs
    L, x = run.config.n_layers, step_x(runs)
    steps = [p["step"] for p in probes_of(run)]
    counts = [run.counts(step) for step in steps]
    # (probes, L) for each percentile
    values = {p: [in_sequence_percentile(c, p).tolist() for c in counts] for p in _PERCENTILES}
    panels = []
    for l in range(L):
        at = {p: [row[l] for row in rows] for p, rows in values.items()}
        bands = {5: (at[5], at[95]), 25: (at[25], at[75])}
        names = {5: "5th, 95th", 25: "25th, 75th", 50: "50th percentile"}
        lines = [
            line(steps, at[p], (l, L), look, names.get(p, ""), bands.get(p))
            for p, look in _PERCENTILES.items()
        ]
        panels.append(panel(lines, x, {**MEDIAN, "high": 1.04}, layer=(l, L)))
    title = "How steadily used units are on in a sequence"
    return figure_data(title, panels, runs, columns=3)


def reuse(runs: Sequence[Run]) -> Data:
    """Share of units not used yet after t tokens of a sequence, against random reuse."""
    from minirelu.sparsity.reuse import aggregated_sparsity

    (run,) = runs
    L, step = run.config.n_layers, probes_of(run)[-1]["step"]
    measured = aggregated_sparsity(run.counts(step))
    tokens = list(range(1, len(measured.unused[0]) + 1))
    x = {"label": "tokens of a sequence read", "scale": "log"}
    y = {"label": "units not used yet", "percent": True, "low": 0, "high": 1.04}
    panels = [
        panel(
            [
                line(tokens, measured.unused[l].tolist(), (l, L), "curve", "measured"),
                line(tokens, measured.random[l].tolist(), (l, L), "null", "random reuse"),
            ],
            x,
            y,
            layer=(l, L),
        )
        for l in range(L)
    ]
    title = f"Units that a sequence has not used yet, at step {step}"
    return figure_data(title, panels, runs, columns=3)
