"""What became of the hidden units of one run, layer by layer: the numbers of a report."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from minirelu.death.definitions import agreement, definitions
from minirelu.death.history import History, LayerHistory
from minirelu.death.life_histories import LifeHistories, life_histories
from minirelu.death.survival import (
    Times,
    exponential_or_weibull,
    first_deaths,
    life_table,
    logrank,
)
from minirelu.death.transitions import flicker, rates
from minirelu.errors import UserError
from minirelu.intervals import silence_bound


def lives_of(history: History, l: int, successive: int = 3) -> LifeHistories:
    """Deaths and revivals of a layer's units, see :func:`life_histories`."""
    layer = history.layers[l]
    return life_histories(
        history.steps, layer.tokens_on, layer.confirm_on, history.n_confirm_sequences, successive
    )


def summary(history: History, successive: int = 3) -> dict[str, Any]:
    """Count who fell silent, died and came back in each layer of a run.

    Parameters
    ----------
    history : History
    successive : int
        silent records in a row that make a death.

    Returns
    -------
    dict
        what the numbers depend on, and ``layers``, a dict for each: shares of the layer's units
        (``silent_on_probe``, ``silent_on_both``, ``dead`` at the last record; ``died`` and
        ``came_back`` at any), ``deaths``, ``revivals``, ``died_again``, ``false_death_rate``
        (value, low, high), deaths and returns per unit and step, ``survival`` at the end with its
        band, ``weibull_shape`` and by how much a constant hazard fits worse (``aic_difference``),
        ``returns_over_flicker``, the log-rank ``z`` against the layer before, and what other
        definitions of death find at the last record that has all they need: ``definitions``, the
        share of units of each, and ``agreement``, Jaccard's index of each with each, in the same
        order. None where there is nothing to tell.

    Raises
    ------
    UserError
        too few records.
    """
    every_layer = []
    before: Times | None = None
    for l, layer in enumerate(history.layers):
        lives = lives_of(history, l, successive)
        times = first_deaths(lives)
        row = {"layer": l, **_counts(lives, layer)}
        row |= _of_survival(times)
        row["returns_over_flicker"] = _or_none(partial(_flicker, history, layer, successive))
        test = _or_none(partial(logrank, times, before)) if before else None
        row["logrank_z"] = test and test.z
        before = times
        row |= _by_definition(history, layer)
        every_layer.append(row)
    sequences = history.n_sequences + history.n_confirm_sequences
    return {
        "records": len(history.steps),
        "every": int(history.steps[1] - history.steps[0]) if len(history.steps) > 1 else 0,
        "step": int(history.steps[-1]),
        "successive": successive,
        "probe_tokens": history.n_tokens,
        "confirming_tokens": history.n_confirm_tokens,
        "sequences": sequences,
        "silent_means_less_than": float(silence_bound(sequences)),
        "layers": every_layer,
    }


def in_words(row: dict[str, Any]) -> dict[str, str]:
    """Say what the row of a layer in :func:`summary` says: heading to text."""

    def share(x: float | None) -> str:
        return "-" if x is None else f"{100 * x:.1f} %"

    def number(x: float | None) -> str:
        return "-" if x is None else f"{x:.3g}"

    return {
        "layer": str(row["layer"]),
        "silent now": share(row["silent_on_both"]),
        "dead now": share(row["dead"]),
        "ever died": share(row["died"]),
        "came back": share(row["came_back"]),
        "false": share(row["false_death_rate"][0]),
        "deaths/step": number(row["deaths_per_step"]),
        "back/step": number(row["revivals_per_step"]),
        "vs flicker": number(row["returns_over_flicker"]),
        "shape": number(row["weibull_shape"][0]),
    }


def _counts(lives: LifeHistories, layer: LayerHistory) -> dict[str, Any]:
    r = rates(lives)
    both = (layer.tokens_on[-1] == 0) & (layer.confirm_on[-1] == 0)
    return {
        "silent_on_probe": float((layer.tokens_on[-1] == 0).mean()),
        "silent_on_both": float(both.mean()),
        "dead": float(lives.dead[-1].mean()),
        "died": float(lives.died.mean()),
        "came_back": float((lives.n_revivals > 0).mean()),
        "deaths": int(lives.n_deaths.sum()),
        "revivals": int(lives.n_revivals.sum()),
        "died_again": int((lives.n_deaths > 1).sum()),
        "false_death_rate": [_finite(x) for x in lives.false_death_rate],
        "deaths_per_step": _finite(r.deaths_per_step().value),
        "revivals_per_step": _finite(r.revivals_per_step().value),
    }


def _by_definition(history: History, layer: LayerHistory) -> dict[str, Any]:
    last = int(np.searchsorted(history.steps, history.slow_steps[-1]))
    sets = definitions(
        layer.tokens_on[: last + 1], history.n_tokens, layer.slow["mean_post"][-1].astype(float)
    )
    found = agreement(sets)
    F = layer.tokens_on.shape[1]
    return {
        "definitions": {n: int(k) / F for n, k in zip(found.names, found.units, strict=True)},
        "agreement": [[_finite(x) for x in line] for line in found.jaccard],
    }


def _of_survival(times: Times) -> dict[str, Any]:
    table = _or_none(partial(life_table, times))
    fit = _or_none(partial(exponential_or_weibull, times))
    survival: list[float | None] = [None] * 3
    if table is not None:
        columns = (table.survival, table.survival_low, table.survival_high)
        survival = [_finite(column[-1]) for column in columns]
    return {
        "survival": survival,
        "weibull_shape": [_finite(x) for x in fit.shape] if fit else [None] * 3,
        "aic_difference": fit and _finite(fit.aic_difference),
    }


def _flicker(history: History, layer: LayerHistory, successive: int) -> float | None:
    return _finite(
        flicker(
            layer.sequences_on, history.n_sequences, layer.confirm_on,
            history.n_confirm_sequences, successive,
        ).ratio.value
    )  # fmt: skip


def _or_none(value: Callable[[], Any]) -> Any:
    """None where a statistic has too little to go by."""
    try:
        return value()
    except UserError:
        return None


def _finite(x: float) -> float | None:
    return float(x) if math.isfinite(x) else None
