"""Twins: the same initial weights, other batches. Do the same units die?"""

from __future__ import annotations

import contextlib
import math

import numpy as np

from minirelu.death.history import History
from minirelu.death.life_histories import life_histories
from minirelu.death.study import Study
from minirelu.death.twins import Overlap, order_of_deaths, overlap
from minirelu.death.verdicts import NOTHING, Result, Row
from minirelu.errors import UserError
from minirelu.intervals import over_seeds
from minirelu.model.parameters import init_params
from minirelu.runs.run import Run

ARMS = ("base", "twin")
PREDICTIONS = {
    "R": "the overlap is at its null, 1",
    "O": "at its null: the outliers were in the batches that are no longer the same",
    "D": "above its null, also among units that began alike",
    "G": "above its null, but not among units that began with the same margin",
}
AT_LEAST = 10  # units in a set
PHASES = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0)  # of the training
RATIO, STRATIFIED = "overlap / null", "the same, at equal margin at step 0"
CONTROL, ORDER = "control: other weights, same batches", "rank correlation of death times"


def run(study: Study) -> Result:
    """Overlap of who is silent in two trainings, layer by layer and step by step."""
    base, twin = ([History.of(run) for run in study.runs(arm)] for arm in ARMS)
    for a, b in zip(base, twin, strict=True):
        refuse_strangers(a.run, b.run)
    S, L = len(base), study.base.model.n_layers
    steps = base[0].steps
    at = sorted({int(np.abs(steps - share * steps[-1]).argmin()) for share in PHASES})
    rows: list[Row] = []
    for l in range(L):
        for p in at:
            same = [_ratio(a, b, l, p) for a, b in zip(base, twin, strict=True)]
            alike = [_ratio(a, b, l, p, by_margin=True) for a, b in zip(base, twin, strict=True)]
            # twin s has the batches of base s + 1, and other initial weights
            control = [_ratio(twin[s], base[(s + 1) % S], l, p) for s in range(S)]
            phase = f"{steps[p]}"
            rows.append(Row(f"{l}", phase, RATIO, same, "1", _says(study, same, alike)))
            rows.append(Row(f"{l}", phase, STRATIFIED, alike, "1", NOTHING))
            rows.append(Row(f"{l}", phase, CONTROL, control, "1", NOTHING))
        order = [_order(study, a, b, l) for a, b in zip(base, twin, strict=True)]
        rows.append(Row(f"{l}", "all", ORDER, order, "0", NOTHING))
    runs = [history.run for history in (*base, *twin)]
    return Result("twins", PREDICTIONS, rows, _conclusion(rows), {}, runs)


def overlaps(a: History, b: History) -> list[tuple[int, int, Overlap]]:
    """Overlaps of two runs: step, layer, and what is found, where both have silent units."""
    steps = sorted({*a.steps.tolist()} & {*b.steps.tolist()})
    at = sorted({int(np.abs(np.array(steps) - x * steps[-1]).argmin()) for x in PHASES})
    found = []
    for step in (steps[i] for i in at):
        p, q = (int(np.searchsorted(history.steps, step)) for history in (a, b))
        for l in range(len(a.layers)):
            with contextlib.suppress(UserError):
                found.append((step, l, overlap(_silent(a, l, p), _silent(b, l, q))))
    return found


def refuse_strangers(a: Run, b: Run) -> None:
    """Raise where two runs do not have the same initial weights, or have the same batches."""
    if a.config != b.config or a.settings.train.seed != b.settings.train.seed:
        raise UserError(
            f"{a.name} and {b.name} are no twins: they have other initial weights or another shape"
        )
    if a.settings.train.batch_seed == b.settings.train.batch_seed:
        raise UserError(f"{a.name} and {b.name} are no twins: they read the same batches")
    first, second = (
        run.params(0) if 0 in run.steps else init_params(run.config, run.settings.train.seed)
        for run in (a, b)
    )
    if not np.array_equal(first.flat, second.flat):
        raise UserError(f"{a.name} and {b.name} are no twins: their weights at step 0 differ")


def _silent(history: History, l: int, p: int) -> np.ndarray:
    """Who is silent on both texts at a record, (F,) bool."""
    layer = history.layers[l]
    return (layer.tokens_on[p] == 0) & (layer.confirm_on[p] == 0)


def _ratio(a: History, b: History, l: int, p: int, by_margin: bool = False) -> float:
    """Overlap of the silent over its null, or of those who are not, where most are silent.

    NaN where there is little to compare: hardly anybody is silent, or nearly everybody.

    ``by_margin``: the null is drawn among units whose margin at step 0 is alike.
    """
    first, second = _silent(a, l, p), _silent(b, l, p)
    if first.mean() + second.mean() > 1:
        first, second = ~first, ~second  # sets that fill a layer overlap whatever made them
    if min(first.sum(), second.sum()) < AT_LEAST:
        return math.nan
    began = a.layers[l].margin[0].astype(np.float64) if by_margin else None
    strata = max(1, min(len(first) // 8, 100))  # narrow, as the dead may be the lowest few
    try:
        return overlap(first, second, began, strata).ratio
    except UserError:  # the margin leaves nothing to chance
        return 1.0


def _order(study: Study, a: History, b: History, l: int) -> float:
    deaths = []
    for history in (a, b):
        layer = history.layers[l]
        lives = life_histories(
            history.steps, layer.tokens_on, layer.confirm_on, history.n_confirm_sequences,
            study.plan.successive,
        )  # fmt: skip
        deaths.append(lives.first.high)
    try:
        return order_of_deaths(deaths[0], deaths[1]).rho.value
    except UserError:  # too few died in both
        return math.nan


def _says(study: Study, same: list[float], alike: list[float]) -> str:
    """At the null: R or O. Above it: G if equal margins at step 0 explain most, D if not."""
    known = np.array(same)
    if np.isnan(known).sum() > len(known) - 2:
        return NOTHING
    ratio = over_seeds(same)
    if ratio.low <= 1:
        return "RO" if ratio.value < study.plan.twins_ratio else NOTHING
    if ratio.value < study.plan.twins_ratio:
        return NOTHING
    left, half = over_seeds(alike), 2 / (1 + 1 / ratio.value)  # where the margin explains half
    if left.high < half:
        return "G"
    return "D" if left.low > half else "DG"


def _conclusion(rows: list[Row]) -> str:
    main = [row for row in rows if row.statistic == RATIO and not np.isnan(row.values).all()]
    above = [row for row in main if row.says in ("D", "G", "DG")]
    control = [
        row.estimate for row in rows
        if row.statistic == CONTROL and not np.isnan(row.values).all()
    ]  # fmt: skip
    off = sum(not e.low <= 1 <= e.high for e in control)
    if not main:
        return "Nobody was silent in both twins: there is nothing to compare."
    return (
        f"The overlap is above its null at {len(above)} of {len(main)} layers and steps, of which "
        f"{sum(row.says == 'G' for row in above)} are explained by the margin at step 0; the "
        f"control is off its null at {off} of {len(control)}."
    )
