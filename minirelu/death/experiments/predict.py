"""Predict: who will be dead at the end, told from what is known of a unit early on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minirelu.death.history import History
from minirelu.death.predict import auc, leave_one_seed_out, roc
from minirelu.death.study import Study
from minirelu.death.summary import lives_of
from minirelu.death.verdicts import NOTHING, Result, Row
from minirelu.errors import UserError
from minirelu.intervals import over_seeds

ARMS: tuple[str, ...] = ()  # beside the one that is asked about
PREDICTIONS = {
    "R": "nothing adds to the margin: the nearest to 0 die, by chance, and step 0 tells little",
    "O": "nothing predicts early",
    "D": "the slope of the margin adds to the margin itself",
    "G": "what is known at step 0 is enough",
}
# Sets of features, each compared with the margin alone.
AT_START = ("margin at step 0", "alignment at step 0", "norm at step 0")
SETS = {
    "margin": ("margin",),
    "firing rate": ("firing rate",),
    "margin and its slope": ("margin", "slope"),
    "all of now": ("margin", "slope", "firing rate", "bias", "alignment", "norm", "second moment"),
    "step 0 alone": AT_START,
}
PHASES = (0.1, 0.2, 0.5)  # of the training


def run(study: Study, arm: str = "base") -> Result:
    """AUC of sets of features on seeds that were left out, by layer and by when one looks."""
    histories = [History.of(run, at_least=12) for run in study.runs(arm)]
    slow = histories[0].slow_steps
    when = sorted({int(np.abs(slow - x * slow[-1]).argmin()) for x in PHASES} - {0})
    rows: list[Row] = []
    detector: dict[str, Any] = {}
    for l in range(study.base.model.n_layers):
        for q in when:
            known = [_features(study, history, l, q) for history in histories]
            aucs = {name: _aucs(known, features) for name, features in SETS.items()}
            says = _says(study, aucs)
            for name in SETS:
                rows.append(
                    Row(f"{l}", f"{slow[q]}", f"AUC, {name}", aucs[name], "0.5",
                        says if name == "margin" else NOTHING)
                )  # fmt: skip
        values, curves = [], []
        for history in histories:
            at_end = _second_moment(history, l)
            values.append(_auc(*at_end))
            curves.append(_roc(*at_end))
        rows.append(
            Row(f"{l}", "end", "AUC, Adam's second moment as a detector", values, "0.5", NOTHING)
        )
        detector[f"{l}"] = curves
    if all(np.isnan(row.values).all() for row in rows):
        raise UserError("too few units are dead at the end to predict anything of them")
    runs = [history.run for history in histories]
    data = {"roc of the second moment": detector}
    return Result("predict", PREDICTIONS, rows, _conclusion(rows), data, runs)


def _features(
    study: Study, history: History, l: int, q: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Of the units alive at a slow record: features by name, and who is dead at the end."""
    layer = history.layers[l]
    p = int(np.searchsorted(history.steps, history.slow_steps[q]))
    alive = layer.tokens_on[p] > 0
    dead = lives_of(history, l, study.plan.successive).dead[-1]
    margin = layer.margin.astype(np.float64)
    before = max(0, p - 2)
    features = {
        "margin": margin[p],
        "slope": (margin[p] - margin[before]) / (p - before),
        "firing rate": np.log1p(layer.tokens_on[p].astype(np.float64)),
        "margin at step 0": margin[0],
    }
    for name in ("bias", "alignment", "norm"):
        features[name] = layer.slow[name][q].astype(np.float64)
        features[f"{name} at step 0"] = layer.slow[name][0].astype(np.float64)
    if "second_moment" in layer.slow:
        features["second moment"] = layer.slow["second_moment"][q].astype(np.float64)
    return {name: values[alive] for name, values in features.items()}, dead[alive]


def _aucs(
    known: list[tuple[dict[str, np.ndarray], np.ndarray]], names: tuple[str, ...]
) -> list[float]:
    """AUC on each seed of a model fitted to the others; NaN where nobody dies, or everybody."""
    try:
        return leave_one_seed_out(
            [np.column_stack([f[n] for n in names if n in f]) for f, _ in known],
            [dead for _, dead in known],
        ).tolist()
    except UserError:
        return [math.nan] * len(known)


def _second_moment(history: History, l: int) -> tuple[np.ndarray, np.ndarray]:
    """Adam's second moment at the last slow record, low for the dead; and who is silent then."""
    layer = history.layers[l]
    p = int(np.searchsorted(history.steps, history.slow_steps[-1]))
    silent = (layer.tokens_on[p] == 0) & (layer.confirm_on[p] == 0)
    moment = layer.slow.get("second_moment")
    if moment is None:
        raise UserError("Adam's second moment is a detector only of what adamw trained")
    return -moment[-1].astype(np.float64), silent


def _auc(score: np.ndarray, positive: np.ndarray) -> float:
    try:
        return auc(score, positive)
    except UserError:
        return math.nan


def _roc(score: np.ndarray, positive: np.ndarray) -> dict[str, list[float]]:
    """Points of the ROC, at most 50; empty where there is none."""
    try:
        curve = roc(score, positive)
    except UserError:
        return {"false": [], "true": []}
    at = np.unique(np.linspace(0, len(curve.threshold) - 1, 50).astype(int))
    return {"false": curve.false_positive[at].tolist(), "true": curve.true_positive[at].tolist()}


def _says(study: Study, aucs: dict[str, list[float]]) -> str:
    known = {name: np.array(values) for name, values in aucs.items()}
    if any(np.isfinite(values).sum() < 2 for values in known.values()):
        return NOTHING
    mean = {name: over_seeds(values) for name, values in known.items()}
    if mean["all of now"].high < study.plan.auc and mean["step 0 alone"].high < study.plan.auc:
        return "O"
    if mean["step 0 alone"].value >= mean["all of now"].value - study.plan.auc_gain:
        return "G"
    gain = over_seeds(known["margin and its slope"] - known["margin"])
    if gain.low > 0 and gain.value >= study.plan.auc_gain:
        return "D"
    if gain.high >= study.plan.auc_gain:
        return NOTHING
    if mean["step 0 alone"].value < study.plan.auc:
        return "R"
    return "G" if mean["step 0 alone"].low >= study.plan.auc else NOTHING


def _conclusion(rows: list[Row]) -> str:
    def mean(statistic: str) -> float:
        values = [v for row in rows if row.statistic == statistic for v in row.values]
        return float(np.nanmean(values)) if np.isfinite(values).any() else math.nan

    numbers = ", ".join(f"{name} {mean(f'AUC, {name}'):.2f}" for name in SETS)
    moment = mean("AUC, Adam's second moment as a detector")
    return (
        f"AUC of being dead at the end, mean of layers, seeds and times: {numbers}. Adam's second "
        f"moment tells who is silent now, without a forward pass, with AUC {moment:.2f}."
    )
