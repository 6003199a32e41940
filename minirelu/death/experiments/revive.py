"""Revive: do units come back from death, more often than rare firing on a finite text shows?"""

from __future__ import annotations

import math

import numpy as np

from minirelu.death.history import History
from minirelu.death.life_histories import life_histories
from minirelu.death.study import Study
from minirelu.death.transitions import flicker, rates
from minirelu.death.verdicts import NOTHING, Result, Row
from minirelu.errors import UserError
from minirelu.intervals import over_seeds

ARMS: tuple[str, ...] = ()  # beside the one that is asked about
PREDICTIONS = {
    "R": "returns are flicker, as many as firing rates give on texts of this size; above it where "
    "weights walk, as walks come back",
    "O": "hardly any returns, but after spikes of the gradient",
    "D": "hardly any returns; above flicker while the layers below still move, fewer later",
    "G": "hardly any returns",
}


def run(study: Study, arm: str = "base") -> Result:
    """Deaths, returns and what flicker explains of them, by layer, before and after the middle."""
    histories = [History.of(run) for run in study.runs(arm)]
    L = study.base.model.n_layers
    rows: list[Row] = []
    data: dict[str, dict[str, list[float]]] = {}
    for l in range(L):
        all_lives, ratios, returned, early, late = [], [], [], [], []
        for history in histories:
            layer = history.layers[l]
            lives = life_histories(
                history.steps, layer.tokens_on, layer.confirm_on, history.n_confirm_sequences,
                study.plan.successive,
            )  # fmt: skip
            all_lives.append(lives)
            died = int(lives.died.sum())
            returned.append(float((lives.n_revivals > 0).sum() / died) if died else np.nan)
            r, half = rates(lives), (len(history.steps) - 1) // 2
            early.append(r.revivals_per_step(slice(0, half)).value)
            late.append(r.revivals_per_step(slice(half, None)).value)
            try:
                chance = flicker(
                    layer.sequences_on, history.n_sequences, layer.confirm_on,
                    history.n_confirm_sequences, study.plan.successive,
                )  # fmt: skip
                expected = max(1.0, float(chance.expected.sum()))  # so that none is not infinite
                observed = float(chance.observed.sum())
                ratios.append(observed / expected if died else math.nan)
            except UserError:
                ratios.append(np.nan)
        rows += [
            Row(f"{l}", "all", "share that died once or more",
                [float(lives.died.mean()) for lives in all_lives], "", NOTHING),
            Row(f"{l}", "all", "share of these that came back", returned, "", NOTHING),
            Row(f"{l}", "all", "returns / flicker", ratios, "1", _says(study, ratios, returned)),
            Row(f"{l}", "1st half", "returns per dead unit and step", early, "", NOTHING),
            Row(f"{l}", "2nd half", "returns per dead unit and step", late, "", NOTHING),
        ]  # fmt: skip
        data[f"{l}"] = {
            "deaths": [int(lives.n_deaths.sum()) for lives in all_lives],
            "revivals": [int(lives.n_revivals.sum()) for lives in all_lives],
            "died again": [int((lives.n_deaths > 1).sum()) for lives in all_lives],
            "false death rate": [lives.false_death_rate.value for lives in all_lives],
            "dead at the end": [float(lives.dead[-1].mean()) for lives in all_lives],
        }
    if not any(sum(d["deaths"]) for d in data.values()):
        raise UserError(
            f"no unit died in any of the {len(histories)} runs, so none could come back; train "
            "longer, wider or at a higher rate"
        )
    runs = [history.run for history in histories]
    return Result("revive", PREDICTIONS, rows, _conclusion(rows), data, runs)


def _says(study: Study, ratio: list[float], returned: list[float]) -> str:
    if min(np.isfinite(ratio).sum(), np.isfinite(returned).sum()) < 2:
        return NOTHING
    estimate = over_seeds(ratio)
    if estimate.low > study.plan.flicker:
        return "RD"
    if np.nanmean(returned) < study.plan.unmoved:
        return "ODG"  # whatever took them down holds them there, as walks do not
    return "R" if estimate.high <= study.plan.flicker else NOTHING


def _conclusion(rows: list[Row]) -> str:
    back = [row for row in rows if row.statistic == "share of these that came back"]
    share = np.nanmean([row.values for row in back])
    above = [row.where for row in rows if row.statistic == "returns / flicker" and row.says == "RD"]
    where = f"in layers {', '.join(above)}" if above else "in no layer"
    return f"{100 * share:.0f} % of the units that died came back; above flicker {where}."
