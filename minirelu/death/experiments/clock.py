"""Clock: at other learning rates, do as many units die by the same step, Σlr, or Σlr²?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minirelu.death.clock import collapse
from minirelu.death.history import History
from minirelu.death.intervals import over_seeds
from minirelu.death.study import Study
from minirelu.death.verdicts import NOTHING, Result, Row
from minirelu.errors import UserError
from minirelu.training.schedule import learning_rate

ARMS = ("base", "half_rate", "double_rate")
PREDICTIONS = {
    "R": "the sum of squares: a random walk spreads with the square of its steps",
    "O": "none of them",
    "D": "the sum of rates: a steady push goes as far as the rates add up to",
    "G": "says nothing of it",
}
CLOCKS = {"step": 0, "sum of lr": 1, "sum of lr²": 2}  # by the power of the rate


def run(study: Study) -> Result:
    """Spread between the curves of three learning rates, on three clocks, by layer."""
    by_arm = {arm: [History.of(run) for run in study.runs(arm)] for arm in ARMS}
    S, L = study.plan.seeds, study.base.model.n_layers
    times = {
        arm: {name: _ticks(histories[0], power) for name, power in CLOCKS.items()}
        for arm, histories in by_arm.items()
    }
    rows: list[Row] = []
    curves: dict[str, Any] = {}
    for l in range(L):
        silent = {arm: [_silent_share(h, l) for h in of] for arm, of in by_arm.items()}
        spread = {
            name: [_spread([(times[arm][name], silent[arm][s]) for arm in ARMS]) for s in range(S)]
            for name in CLOCKS
        }
        says = _says(spread)
        for name in CLOCKS:
            rows.append(
                Row(f"{l}", "all", f"spread on {name}", spread[name], "0",
                    says if name == "step" else NOTHING)
            )  # fmt: skip
        curves[f"{l}"] = {
            arm: np.mean(of_seeds, axis=0).tolist() for arm, of_seeds in silent.items()
        }
    if not any(np.isfinite(row.values).any() for row in rows):
        raise UserError("nobody fell silent in any of these runs, so there is no clock to find")
    data = {
        "rates": {arm: of[0].run.settings.train.learning_rate for arm, of in by_arm.items()},
        "clocks": {arm: {n: x.tolist() for n, x in of.items()} for arm, of in times.items()},
        "silent": curves,
    }
    runs = [history.run for of in by_arm.values() for history in of]
    return Result("clock", PREDICTIONS, rows, _conclusion(rows), data, runs)


def _ticks(history: History, power: int) -> np.ndarray:
    """What a clock shows at each record: the sum so far of the learning rate to a power, (P,)."""
    train = history.run.settings.train
    rates = [learning_rate(step, train) ** power for step in range(1, train.steps + 1)]
    return np.concatenate([[0.0], np.cumsum(rates)])[history.steps]


def _silent_share(history: History, l: int) -> np.ndarray:
    """Share of a layer's units silent on both texts at each record, (P,)."""
    layer = history.layers[l]
    return ((layer.tokens_on == 0) & (layer.confirm_on == 0)).mean(axis=1)


def _spread(curves: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """0 where the curves lie on each other; NaN where nothing happens in them."""
    try:
        return collapse(curves)
    except UserError:
        return math.nan


def _says(spread: dict[str, list[float]]) -> str:
    """The clock on which the curves lie closest, seed by seed, if one is ahead of the others."""
    for name, letter in (("sum of lr", "D"), ("sum of lr²", "R")):
        ahead = []
        for other in CLOCKS:
            if other != name:
                gain = np.subtract(spread[other], spread[name])
                known = gain[np.isfinite(gain)]
                ahead.append(len(known) > 1 and over_seeds(known).low > 0)
        if all(ahead):
            return letter
    return NOTHING


def _conclusion(rows: list[Row]) -> str:
    told = []
    for letter, what in (("D", "the sum of rates"), ("R", "the sum of squared rates")):
        layers = ", ".join(row.where for row in rows if row.says == letter)
        told += [f"on {what} in layers {layers}"] if layers else []
    mean = {
        name: np.nanmean([r.values for r in rows if r.statistic == f"spread on {name}"])
        for name in CLOCKS
    }
    numbers = ", ".join(f"{name} {value:.3f}" for name, value in mean.items())
    where = "; ".join(told) if told else "no clock is ahead of the others in any layer"
    return f"Curves of other rates lie closest {where}. Spread, mean of all layers: {numbers}."
