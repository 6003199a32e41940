"""Clock: at other learning rates, do as many units die by the same step, Σlr, or Σlr²?"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minirelu.death.clock import best_clock, collapse
from minirelu.death.clock import clock as ticks
from minirelu.death.history import History
from minirelu.death.study import Study
from minirelu.death.summary import lives_of
from minirelu.death.verdicts import NOTHING, Result, Row
from minirelu.errors import UserError
from minirelu.intervals import over_seeds
from minirelu.runs.run import Run
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
    """Spread between the curves of three learning rates, on three clocks, by layer.

    A curve is the share of a layer's units that have died once or more by each record.
    """
    by_arm = {arm: [History.of(run) for run in study.runs(arm)] for arm in ARMS}
    rates = {arm: _rates(of[0].run) for arm, of in by_arm.items()}
    steps = {arm: of[0].steps for arm, of in by_arm.items()}
    clocks = {
        name: {arm: ticks(rates[arm], steps[arm], power) for arm in ARMS}
        for name, power in CLOCKS.items()
    }
    rows: list[Row] = []
    curves: dict[str, Any] = {}
    for l in range(study.base.model.n_layers):
        died = {arm: [_died(study, h, l) for h in of] for arm, of in by_arm.items()}
        spread: dict[str, list[float]] = {name: [] for name in CLOCKS}
        power = []
        for s in range(study.plan.seeds):
            of_seed = [died[arm][s] for arm in ARMS]
            for name in CLOCKS:
                times = [clocks[name][arm] for arm in ARMS]
                spread[name].append(_or_nan(_spread, times, of_seed))
            power.append(_or_nan(_power, rates, steps, of_seed))
        rows.append(Row(f"{l}", "all", "best power of the rate", power, "1 D, 2 R", _says(spread)))
        for name in CLOCKS:
            rows.append(Row(f"{l}", "all", f"spread on {name}", spread[name], "0", NOTHING))
        curves[f"{l}"] = {arm: np.mean(of, axis=0).tolist() for arm, of in died.items()}
    if all(np.isnan(row.values).all() for row in rows):
        raise UserError("nobody died in any of these runs, so there is no clock to find")
    data = {
        "rates": {arm: of[0].run.settings.train.learning_rate for arm, of in by_arm.items()},
        "clocks": {name: {arm: x.tolist() for arm, x in of.items()} for name, of in clocks.items()},
        "died": curves,
    }
    runs = [history.run for of in by_arm.values() for history in of]
    return Result("clock", PREDICTIONS, rows, _conclusion(rows), data, runs)


def _rates(run: Run) -> np.ndarray:
    """The learning rate of every update, (steps,)."""
    train = run.settings.train
    return np.array([learning_rate(step, train) for step in range(1, train.steps + 1)])


def _died(study: Study, history: History, l: int) -> np.ndarray:
    """Share of a layer's units that have died once or more by each record, (P,)."""
    first = lives_of(history, l, study.plan.successive).first.high
    by_record = np.bincount(first[first >= 0], minlength=len(history.steps))
    return by_record.cumsum() / len(first)


def _spread(clocks: list[np.ndarray], curves: list[np.ndarray]) -> float:
    return collapse(clocks, curves).spread


def _power(
    rates: dict[str, np.ndarray], steps: dict[str, np.ndarray], curves: list[np.ndarray]
) -> float:
    return best_clock(list(rates.values()), list(steps.values()), curves).power


def _or_nan(statistic: Callable[..., float], *arguments: Any) -> float:
    """NaN where nobody dies in the range that the curves share."""
    try:
        return statistic(*arguments)
    except UserError:
        return math.nan


def _says(spread: dict[str, list[float]]) -> str:
    """The clock on which the curves lie closest, seed by seed, if it is ahead of both others."""
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
    power = np.nanmean([r.values for r in rows if r.statistic == "best power of the rate"])
    numbers = ", ".join(f"{name} {value:.3f}" for name, value in mean.items())
    where = (
        f"Curves of other rates lie closest {'; '.join(told)}"
        if told
        else "No clock is ahead of the others in any layer"
    )
    return f"{where}. Mean of all layers: spread {numbers}; best power of the rate {power:.2f}."
