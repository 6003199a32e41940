"""Burst: do deaths come all at once, and where the gradient spikes?"""

from __future__ import annotations

import math

import numpy as np

from minirelu.death.bursts import bursts, correlation_with, largest_in_intervals, spikes
from minirelu.death.history import History
from minirelu.death.life_histories import life_histories
from minirelu.death.study import Study
from minirelu.death.transitions import rates
from minirelu.death.verdicts import NOTHING, Result, Row
from minirelu.errors import UserError
from minirelu.intervals import over_seeds

ARMS: tuple[str, ...] = ()  # beside the one that is asked about
PREDICTIONS = {
    "R": "Fano factor about 1: each unit dies by itself, at a smooth hazard",
    "O": "Fano factor far above 1, and deaths correlate with spikes",
    "D": "smooth, whatever the hazard; no correlation with spikes",
    "G": "as for D",
}
SIGNALS = ("grad_norm", "loss")


def run(study: Study, arm: str = "base") -> Result:
    """Scatter of deaths around a smooth hazard, and their correlation with spikes, by layer."""
    histories = [History.of(run, at_least=21) for run in study.runs(arm)]
    peaks = [_peaks(history) for history in histories]
    # While the rate warms up, gradient and loss fall from where they begin: a trend, no spike.
    settled = int(np.searchsorted(histories[0].steps, study.base.train.warmup_steps))
    phase = f"{histories[0].steps[settled]} on"
    rows, data = [], {}
    n_deaths = 0
    for l in range(study.base.model.n_layers):
        fano, null = [], []
        r: dict[str, list[float]] = {name: [] for name in SIGNALS}
        p: dict[str, list[float]] = {name: [] for name in SIGNALS}
        series = []
        for history, signals in zip(histories, peaks, strict=True):
            layer = history.layers[l]
            found = rates(
                life_histories(
                    history.steps, layer.tokens_on, layer.confirm_on,
                    history.n_confirm_sequences, study.plan.successive,
                )
            )  # fmt: skip
            n_deaths += int(found.deaths.sum())
            series.append({"deaths": found.deaths.tolist(), "at_risk": found.at_risk.tolist()})
            if found.deaths[settled:].sum() < 10:  # says nothing of how they scatter
                continue
            scatter = bursts(found.deaths[settled:], found.at_risk[settled:])
            fano.append(scatter.fano)
            null.append(scatter.null.value)
            for name in SIGNALS:
                correlation = correlation_with(scatter.excess, signals[name][settled:])
                r[name].append(correlation.r)
                p[name].append(correlation.p)
        if not fano:
            fano, null = [math.nan], [math.nan]
            r = p = {name: [math.nan] for name in SIGNALS}
        level = f"{np.mean(null):.2g}"
        locked = any(_together(p[name]) < study.plan.significance / len(p) for name in SIGNALS)
        rows.append(Row(f"{l}", phase, "Fano factor", fano, level, _says(study, fano, locked)))
        for name in SIGNALS:
            rows.append(Row(f"{l}", phase, f"r with spikes of {name}", r[name], "0", NOTHING))
            rows.append(Row(f"{l}", phase, f"its p, {name}", p[name], "0.5", NOTHING))
        data[f"{l}"] = series
    if not n_deaths:
        raise UserError("no unit died in any run, so there are no bursts; train longer or wider")
    runs = [history.run for history in histories]
    data["steps"] = histories[0].steps.tolist()
    data["spikes"] = peaks
    return Result("burst", PREDICTIONS, rows, _conclusion(rows), data, runs)


def _together(p: list[float]) -> float:
    """One p of all seeds (Fisher 1925): of K intervals, a single seed's is 2 / K at best."""
    from scipy.stats import chi2  # slow to load

    return float(chi2.sf(-2 * np.log(p).sum(), 2 * len(p)))


def _peaks(history: History) -> dict[str, np.ndarray]:
    """How far each signal sticks out above its surroundings, at most in each interval, (P - 1,)."""
    records = history.run.metrics("train")
    return {
        name: largest_in_intervals(spikes(np.array([r[name] for r in records])), history.steps)
        for name in SIGNALS
    }


def _says(study: Study, fano: list[float], locked: bool) -> str:
    if len(fano) < 2 or np.isnan(fano).any():
        return NOTHING
    estimate = over_seeds(fano)
    if estimate.low > study.plan.fano and locked:
        return "O"
    if estimate.high <= study.plan.fano and not locked:
        return "RDG"  # smooth, and not tied to spikes: speaks against outliers alone
    return NOTHING


def _conclusion(rows: list[Row]) -> str:
    fano = {row.where: row for row in rows if row.statistic == "Fano factor"}
    tied = [where for where, row in fano.items() if row.says == "O"]
    if tied:
        return f"Deaths come in bursts that follow spikes in layers {', '.join(tied)}."
    known = {w: row.estimate for w, row in fano.items() if not np.isnan(row.values).any()}
    bursts_in = [w for w, e in known.items() if e.low > float(fano[w].null)]
    where = f"in layers {', '.join(bursts_in)}" if bursts_in else "in no layer"
    return (
        f"Deaths come together, more than units that die each by itself, {where}; in none do these "
        "bursts follow spikes."
    )
