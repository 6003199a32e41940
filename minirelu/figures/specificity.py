"""What units respond to, layer by layer: kinds of units, and information against its null."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from minirelu.errors import UserError
from minirelu.figures.panels import Data, figure_data, line, panel
from minirelu.figures.runs import Group, groups, not_alike, unlike
from minirelu.figures.usage_over_training import SHARE, run_look, step_x
from minirelu.intervals import Estimate
from minirelu.runs.run import Run
from minirelu.specificity.layers import NUMBERS, of_seeds
from minirelu.specificity.measure import read_results

_WIDTH = 0.7  # of all that stands side by side at one tick
NATS = {"label": "nats", "low": 0}
THOUSANDTHS = {"label": "thousandths of a nat", "factor": 1000}
# Panels: title, what is drawn, axis.
_NOW: tuple[tuple[str, tuple[str, ...], dict[str, Any]], ...] = (
    ("silent, and nearly always on", ("silent", "steady"), SHARE),
    (
        "what they respond to",
        ("token_detector", "bigram_unit", "trigram_unit", "few_tokens", "positional"),
        SHARE,
    ),
    (
        "information, median of units that are on",
        ("information_token", "information_previous", "information_next"),
        NATS,
    ),
    ("the same with the position", ("information_position",), THOUSANDTHS),
)
_OVER_TRAINING: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("information with the token", "information_token", NATS),
    ("effective number of tokens, median", "effective_tokens", {"label": "tokens", "low": 0}),
    ("few tokens explain 95 % of firings", "few_tokens", SHARE),
    ("silent on this text", "silent", SHARE),
)


def specificity(runs: Sequence[Run]) -> Data:
    """Kinds and information by layer; and over training, where several steps were measured.

    Raises
    ------
    UserError
        a run was not measured yet, or not on as much text as another; too many settings to tell
        apart.
    """
    together = groups(runs)
    run_look(len(together) - 1)  # more could not be told apart
    results = {run.folder: read_results(run) for run in runs}
    read = {each[-1]["tokens"] for each in results.values()}
    if len(read) > 1:
        numbers = ", ".join(f"{n:,}" for n in sorted(read))
        raise UserError(
            f"these runs were measured on different amounts of text ({numbers} tokens); measure "
            "them together: minirelu specificity"
        )
    by_group = [(group, [results[run.folder] for run in group.runs]) for group in together]
    panels = [_now(by_group, *what) for what in _NOW]
    if any(len(seed) > 1 for _, seeds in by_group for seed in seeds):
        x = step_x(runs)
        panels += [_over_training(by_group, x, *what) for what in _OVER_TRAINING]
    steps = sorted({each[-1]["step"] for each in results.values()})
    at = f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"
    notes = [
        f"Above: {at}. " * (len(panels) > len(_NOW)) + f"Held-out text, {read.pop():,} tokens."
    ]
    if sizes := sorted({len(group.runs) for group in together} - {1}):
        seeds = " or ".join(map(str, sizes))
        notes.append(f"Means over {seeds} seeds; bars and shades: 95 % intervals over them.")
    title = "What hidden units respond to" + f", {at}" * (len(panels) == len(_NOW))
    return figure_data(title, panels, runs, [*notes, *not_alike(unlike(runs))], columns=2)


Measured = list[tuple[Group, list[list[dict[str, Any]]]]]  # of each seed, what was stored


def _now(by_group: Measured, title: str, names: Sequence[str], y: dict[str, Any]) -> Data:
    """One tick for each name; there, layers side by side, and with a mark for each group."""
    lines = []
    for g, (group, seeds) in enumerate(by_group):
        L = group.runs[0].config.n_layers
        last = [results[-1]["layers"] for results in seeds]
        for name in names:
            null = name.replace("information_", "null_")
            for which in dict.fromkeys((name, null)):
                for l, estimate in enumerate(of_seeds(last, which)):
                    place = (l + (g + 0.5) / len(by_group)) / L - 0.5
                    at = [names.index(name) + _WIDTH * place]
                    series = group.name if len(by_group) > 1 else ""
                    look = f"dots {g}"
                    if which != name:
                        series, look = "firings at random places", "hollow"
                    lines.append(_line(at, [estimate], (l, L), look, series))
    headings = [[i, NUMBERS[name].heading.replace(" ", "\n")] for i, name in enumerate(names)]
    x = {"label": "", "scale": "linear", "ticks": headings, "low": -0.5, "high": len(names) - 0.5}
    return panel(lines, x, y, title)


def _over_training(by_group: Measured, x: Data, title: str, name: str, y: dict[str, Any]) -> Data:
    """A line for each layer, over the steps that all seeds of a group have."""
    lines = []
    for g, (group, seeds) in enumerate(by_group):
        run = group.runs[0]
        each = [{result["step"]: result["layers"] for result in results} for results in seeds]
        steps = sorted(set.intersection(*map(set, each)))
        over = [of_seeds([layers[step] for layers in each], name) for step in steps]
        each_step = run.settings.train.batch_size * run.config.n_ctx if "in_tokens" in x else 1
        at = [step * each_step for step in steps]
        L = run.config.n_layers
        series = group.name if len(by_group) > 1 else ""
        for l in range(L):
            lines.append(_line(at, [layer[l] for layer in over], (l, L), run_look(g), series))
    return panel(lines, x, y, title)


def _line(
    x: list[float], values: Sequence[Estimate], layer: tuple[int, int], look: str, series: str
) -> Data:
    """Means with their limits, if they have any."""
    mean, low, high = (list(each) for each in zip(*values, strict=True))
    bounded = any(math.isfinite(v) for v in low)
    limits = [[v if math.isfinite(v) else math.nan for v in each] for each in (low, high)]
    return line(x, mean, layer, look, series, (limits[0], limits[1]) if bounded else None)
