"""Units one by one: how often they fire, and how many more a longer text shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minirelu.figures.panels import Data, figure_data, line, panel
from minirelu.figures.style import short
from minirelu.runs.run import Run, probes_of


def rarefaction(runs: Sequence[Run]) -> Data:
    """Units seen against tokens read, with what shuffled tokens and independent units would do."""
    from minirelu.sparsity.rarefaction import chao1
    from minirelu.sparsity.rarefaction import rarefaction as measure

    (run,) = runs
    L, T, step = run.config.n_layers, run.config.n_ctx, probes_of(run)[-1]["step"]
    counts = run.counts(step)
    seen, estimate = measure(counts), chao1(counts).estimate
    tokens = seen.tokens.tolist()
    x: Data = {"label": "tokens read", "scale": "log"}
    x["ticks"] = [[T * 4**i, short(T * 4**i)] for i in range(16) if T * 4**i <= tokens[-1]]
    panels = []
    for l, F in enumerate(run.config.mlp_widths):
        expected = float(estimate[l]) / F
        lines = [
            line(tokens, seen.seen[l].tolist(), (l, L), "curve", "as the text runs"),
            line(tokens, seen.shuffled[l].tolist(), (l, L), "null", "same tokens, shuffled"),
            line(tokens, seen.independent[l].tolist(), (l, L), "second null", "independent units"),
            line(
                [tokens[0], tokens[-1]], [expected] * 2, None, "mark 1", "Chao1's estimate of all"
            ),
        ]
        y = {"label": "units seen", "percent": True, "low": 0, "high": 1.04}
        panels.append(panel(lines, x, y, layer=(l, L)))
    title = f"Units seen against tokens read, at step {step}"
    return figure_data(title, panels, runs, columns=3)


def frequencies(runs: Sequence[Run]) -> Data:
    """How many units fire how often; those that never did apart, at the left."""
    (run,) = runs
    L, step = run.config.n_layers, probes_of(run)[-1]["step"]
    counts = run.counts(step)
    N = counts.n_tokens
    # Bins [1, 2), [2, 4), [4, 8) ... tokens, and a separate one for 0
    edges = 2.0 ** np.arange(N.bit_length() + 1)
    silent_bin = [0.25 / N, 0.5 / N]
    ticks = [[silent_bin[1] / 2**0.5, "never"]]
    decades = [i for i in range(7) if 10.0**-i > 1 / N]
    ticks += [[10.0**-i, "" if i % 2 else f"{10.0 ** (2 - i):g} %"] for i in decades]
    panels = []
    for l, tokens_on in enumerate(counts.tokens_on):
        shares = np.histogram(tokens_on, bins=edges)[0] / len(tokens_on)
        silent = float(np.mean(tokens_on == 0))
        name = f"silent on all {N} tokens"
        lines = [
            line((edges / N).tolist(), [*shares.tolist(), 0.0], (l, L), "steps"),
            line(silent_bin, [silent, 0.0], None, "silent", name),
        ]
        x = {"label": "tokens at which a unit is on", "scale": "log", "ticks": ticks}
        y = {"label": "share of the layer's units", "percent": True, "low": 0}
        panels.append(panel(lines, x, y, layer=(l, L)))
    title = f"How often units fire, at step {step}: each bin twice the one before"
    return figure_data(title, panels, runs, columns=3)
