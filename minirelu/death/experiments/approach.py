"""Approach: how a unit's margin comes down before its death, and what pulls it."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from minirelu.death.approach import aligned, approach, walk_null
from minirelu.death.history import History
from minirelu.death.split import PARTS, Split, split_update
from minirelu.death.study import Study
from minirelu.death.summary import lives_of
from minirelu.death.verdicts import NOTHING, Result, Row
from minirelu.errors import UserError
from minirelu.intervals import over_seeds
from minirelu.runs.checkpoint import checkpoint_steps

ARMS: tuple[str, ...] = ()  # beside the one that is asked about
PREDICTIONS = {
    "R": "as a random walk: exponent 1, and no more deaths than walks with the same steps",
    "O": "in one jump, far larger than a walk's, and more deaths than random walks have",
    "D": "as a steady fall: exponent towards 2, more deaths than random walks have",
    "G": "as for D: how units fall does not tell why it is these",
}
BEFORE = 6  # records before death
REPEATS = 20  # of the random walks


def run(study: Study, arm: str = "base") -> Result:
    """Margins aligned at death against random walks, and the split of updates, by layer."""
    histories = [History.of(run, at_least=BEFORE + 4) for run in study.runs(arm)]
    splits = [_splits(study, history) for history in histories]
    rows: list[Row] = []
    data: dict[str, Any] = {}
    for l in range(study.base.model.n_layers):
        found = [_of_layer(study, history, l) for history in histories]
        known = [f for f in found if f]
        if known:
            columns = {key: [f[key] for f in known] for key in known[0]}
            jump = columns["jump"]
            rows += [
                Row(f"{l}", "to death", "exponent of the descent", columns["exponent"],
                    _null(columns["null exponent"]), _says(study, columns)),
                Row(f"{l}", "to death", "share of its largest step", jump,
                    _null(columns["null jump"]), NOTHING),
                Row(f"{l}", "to death", "deaths / those of random walks", columns["excess"], "1",
                    NOTHING),
            ]  # fmt: skip
        pulls = _pulls(histories, splits, l)
        for who in ("dying", "staying"):
            for part in PARTS:
                values = [pull[who][part] for pull in pulls]
                rows.append(Row(f"{l}", "an update", f"{part}, {who}, 1e-3", values, "0", NOTHING))
        data[f"{l}"] = {"margins": [f["mean"] for f in known],
                        "spread": [f["spread"] for f in known], "pulls": pulls}  # fmt: skip
    if not any(row.statistic == "exponent of the descent" for row in rows):
        raise UserError(
            f"too few units died {BEFORE} records or more after the first one; train longer, "
            "wider, or with a smaller --history-every"
        )
    data["steps before death"] = [
        int((i - BEFORE) * np.diff(histories[0].steps)[0]) for i in range(BEFORE + 1)
    ]
    runs = [history.run for history in histories]
    return Result("approach", PREDICTIONS, rows, _conclusion(rows), data, runs)


def _mean(values: list[float]) -> float:
    """Mean of those that are known; NaN without any."""
    return float(np.nanmean(values)) if not np.isnan(values).all() else math.nan


def _null(values: list[float]) -> str:
    mean = _mean(values)
    return "-" if math.isnan(mean) else f"{mean:.2f}"


def _of_layer(study: Study, history: History, l: int) -> dict[str, Any]:
    """Statistics of one run's layer; empty where too few units died."""
    margin = history.layers[l].margin.astype(np.float32)
    lives = lives_of(history, l, study.plan.successive)
    paths = aligned(margin, lives.first.high, BEFORE)
    try:
        found = approach(paths)
    except UserError:
        return {}
    null = walk_null(margin, BEFORE, study.plan.successive, REPEATS)
    died = int(lives.died.sum())
    return {
        "exponent": found.exponent.value,
        "null exponent": null.exponent.value,
        "jump": found.jump.value,
        "null jump": null.jump.value,
        "excess": died / max(null.deaths.value, 1 / REPEATS),  # of no death: as of one in all
        "more": died > null.deaths.high,
        "mean": found.mean.tolist(),
        "spread": found.spread.tolist(),
    }


def _splits(study: Study, history: History) -> dict[int, list[Split]]:
    """The split of the update after each kept optimizer state, but the last."""
    run = history.run
    kept = checkpoint_steps(run.checkpoints, resumable=True)[:-1]
    kept = [step for step in kept if step in history.steps]
    if not kept:
        raise UserError(
            f"{run.name} keeps no optimizer state on a step of its history; train with "
            "--keep-optimizer-at, at multiples of --history-every"
        )
    splits = {}
    for step in kept:
        splits[step] = split_update(run, step)
        study.on_progress(1, study.plan.seeds * len(kept))
    return splits


def _pulls(
    histories: list[History], splits: list[dict[int, list[Split]]], l: int
) -> list[dict[str, dict[str, float]]]:
    """Of each seed: what the parts of an update do, on average, to units that die next or stay.

    Dying: alive at a kept state, silent on both texts at one of the next three records. In
    thousandths of a pre-activation, at the token where it is largest.
    """
    pulls = []
    for history, of_run in zip(histories, splits, strict=True):
        layer = history.layers[l]
        silent = (layer.tokens_on == 0) & (layer.confirm_on == 0)
        sums = {who: np.zeros(len(PARTS)) for who in ("dying", "staying")}
        n = dict.fromkeys(sums, 0)
        for step, by_layer in of_run.items():
            p = int(np.searchsorted(history.steps, step))
            alive = layer.tokens_on[p] > 0
            soon = silent[p + 1 : p + 4].any(axis=0)
            for who, units in (("dying", alive & soon), ("staying", alive & ~soon)):
                sums[who] += by_layer[l].parts[:, units].sum(axis=1)
                n[who] += int(units.sum())
        pulls.append(
            {
                who: {
                    part: 1000 * float(x) / n[who] if n[who] else math.nan
                    for part, x in zip(PARTS, sums[who], strict=True)
                }
                for who in sums
            }
        )
    return pulls


def _says(study: Study, columns: dict[str, list[float]]) -> str:
    if len(columns["exponent"]) < 2:
        return NOTHING
    exponent, jump = (over_seeds(columns[name]) for name in ("exponent", "jump"))
    more = over_seeds(np.log(columns["excess"]))  # a ratio
    walks = _mean(columns["null exponent"])
    walks = 1.0 if math.isnan(walks) else walks  # none died
    # walks with the same steps make the same jumps, but up as often as down: fewer of them die
    if more.low > 0:
        plain = plain_walks()
        if jump.low > plain + study.plan.largest_step * (1 - plain):
            return "O"
        return "DG" if exponent.low > walks else NOTHING
    few = np.mean(columns["more"]) < 0.5  # a wide interval of the excess does not make a walk
    return "R" if few and exponent.low <= walks else NOTHING


@functools.cache
def plain_walks(units: int = 4000, records: int = 60) -> float:
    """Share of the largest step in the descent of walks of one step size, aligned at death.

    Within so few records it is large even where nothing jumps: they are chosen for having fallen.

    >>> 0.4 < plain_walks() < 0.7
    True
    """
    rng = np.random.default_rng(0)
    walk = rng.uniform(0, 5, units) + rng.normal(size=(records, units)).cumsum(axis=0)
    below = walk <= 0
    death = np.where(below.any(axis=0), below.argmax(axis=0), -1)
    return approach(aligned(walk, death, BEFORE), resamples=1).jump.value


def _conclusion(rows: list[Row]) -> str:
    main = [row for row in rows if row.statistic == "exponent of the descent"]
    parts = {
        letter: ", ".join(row.where for row in main if row.says == letter)
        for letter in ("R", "DG", "O")
    }
    told = [
        f"{what} in layers {parts[letter]}"
        for letter, what in (("DG", "a steady fall"), ("R", "random walks"), ("O", "jumps"))
        if parts[letter]
    ]
    return f"Before death, margins look like {'; '.join(told)}." if told else (
        "Before death, margins fit neither random walks, nor a steady fall, nor jumps."
    )  # fmt: skip
