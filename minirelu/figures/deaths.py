"""Who is silent, who dies and how fast: figures of one run that has a history of its units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minirelu.death.history import History
from minirelu.death.life_histories import LifeHistories
from minirelu.death.summary import lives_of
from minirelu.death.survival import first_deaths, life_table
from minirelu.death.transitions import rates
from minirelu.errors import UserError
from minirelu.figures.panels import Data, figure_data, line, panel
from minirelu.figures.usage_over_training import SHARE, step_x
from minirelu.runs.run import Run

MOST_INTERVALS = 40  # of the hazard; more are put together


def every_life(runs: Sequence[Run]) -> tuple[Run, History, list[LifeHistories]]:
    """Read what became of the units of one run, layer by layer."""
    (run,) = runs
    history = History.of(run)
    return run, history, [lives_of(history, l) for l in range(run.config.n_layers)]


def what_died(lives: list[LifeHistories]) -> list[str]:
    """Say what a death is, and where there are none."""
    without = [l for l, of_layer in enumerate(lives) if not of_layer.died.any()]
    notes = [
        f"A death: silent on the probe at {lives[0].successive} records in a row, and on the "
        "confirming text at the last of them."
    ]
    if len(without) == len(lives):
        notes.append("No unit of this run died.")
    elif without:
        layers = f"layer{'s' if len(without) > 1 else ''} {', '.join(map(str, without))}"
        notes.append(f"No unit died in {layers}.")
    return notes


def silence(runs: Sequence[Run]) -> Data:
    """Share of units silent on both texts, and of those that are dead, over training."""
    run, history, lives = every_life(runs)
    L, steps, lines = len(lives), history.steps.tolist(), []
    for l, (layer, of_layer) in enumerate(zip(history.layers, lives, strict=True)):
        silent = (layer.silent & (layer.confirm_on == 0)).mean(axis=1)
        dead = of_layer.dead.mean(axis=1)
        lines += [
            line(steps, silent.tolist(), (l, L), "curve", "silent on both texts"),
            line(steps, dead.tolist(), (l, L), "thin dotted", "dead"),
        ]
    texts = f"{history.n_tokens:,} and {history.n_confirm_tokens:,} tokens"
    notes = [f"Both texts: probe and confirming text, {texts}.", *what_died(lives)]
    panels = [panel(lines, step_x(runs, "even steps"), SHARE)]
    return figure_data("Silent and dead units", panels, runs, notes)


def survival(runs: Sequence[Run]) -> Data:
    """Share of units that have not died yet, after Kaplan and Meier."""
    run, _, lives = every_life(runs)
    L, lines = len(lives), []
    for l, of_layer in enumerate(lives):
        try:
            table = life_table(first_deaths(of_layer))
        except UserError:  # none of its units was on at the first record
            continue
        survival, low, high = (
            [1.0, *column.tolist()]
            for column in (table.survival, table.survival_low, table.survival_high)
        )
        lines.append(line([0, *table.end.tolist()], survival, (l, L), "curve", band=(low, high)))
    left_out = sum(int(of_layer.born_silent.sum()) for of_layer in lives)
    notes = what_died(lives)
    if left_out:
        notes.append(f"Left out: {left_out:,} units that are silent at step 0.")
    notes.append("Shaded: 95 % limits, with units as the sample; another seed may differ more.")
    y = {"label": "units that have not died yet", "percent": True}
    panels = [panel(lines, step_x(runs, "even steps"), y)]
    return figure_data("Survival of hidden units, until their first death", panels, runs, notes)


def hazard(runs: Sequence[Run]) -> Data:
    """Deaths per unit alive and step; below it the learning rate.

    The last records are left out: a death takes several, so that it could not be seen there.
    """
    run, history, lives = every_life(runs)
    L, K, lines = len(lives), len(history.steps) - lives[0].successive, []
    together = -(-K // MOST_INTERVALS)
    parts = [slice(i, min(i + together, K)) for i in range(0, K, together)]
    middles = [float(history.steps[p.start] + history.steps[p.stop]) / 2 for p in parts]
    for l, of_layer in enumerate(lives):
        counted = rates(of_layer)
        per_step = [counted.deaths_per_step(part).value for part in parts]
        lines.append(line(middles, per_step, (l, L), "curve"))
    train = [r for r in run.metrics("train") if r["step"] <= history.steps[K]]
    rate = line([r["step"] for r in train], [r["lr"] for r in train], None, "curve")
    x = step_x(runs, "even steps")
    panels = [
        panel(lines, x, {"label": "deaths per unit and step", "low": 0}, "deaths"),
        panel([rate], x, {"label": "learning rate", "low": 0}, "learning rate"),
    ]
    over = int(together * np.diff(history.steps[:2])[0])
    notes = [*what_died(lives), f"Deaths are those of {over} steps each; units: those alive."]
    return figure_data("Hazard of dying, beside the learning rate", panels, runs, notes)
