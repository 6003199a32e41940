"""Intervene: train again with one thing changed, and compare who is silent at the end."""

from __future__ import annotations

import numpy as np

from minirelu.death.study import ARMS as ALL_ARMS
from minirelu.death.study import Study
from minirelu.death.verdicts import NOTHING, Result, Row
from minirelu.runs.run import Run, probes_of

ARMS = tuple(arm for arm in ALL_ARMS if arm != "twin")
QUESTION = "Which change of the training keeps units from falling silent, and at what loss?"
PREDICTIONS = {
    "R": "no change of single steps matters",
    "O": "clipping a unit's largest updates, fewer than 1 %, spares half or more of them",
    "D": "clipping spares less than a tenth; a lower rate, or less decay, spares in proportion",
    "G": "taking the mean out of the MLP's input spares most",
}


def intervene(study: Study) -> Result:
    """Silent share and loss of every arm against ``base``, seed by seed."""
    trained = [arm for arm in ARMS if arm == "base" or not study.missing([arm])]
    runs = {arm: study.runs(arm) for arm in trained}
    L = study.base.model.n_layers
    silent = {arm: [silent_share(run) for run in of] for arm, of in runs.items()}  # seeds, L
    losses = {arm: [probes_of(run)[-1]["val_loss"] for run in of] for arm, of in runs.items()}
    rows = []
    for arm in trained:
        means = [float(np.mean(shares)) for shares in silent[arm]]
        rows.append(Row("all", "end", f"{arm}: silent share", means, "", NOTHING))
        rows.append(Row("all", "end", f"{arm}: loss, nats per token", losses[arm], "", NOTHING))
        if arm == "base":
            continue
        spared = [
            [_spared(b[l], s[l]) for b, s in zip(silent["base"], silent[arm], strict=True)]
            for l in range(L)
        ]
        for l in range(L):
            rows.append(Row(f"{l}", "end", f"{arm}: deaths avoided", spared[l], "0", NOTHING))
        overall = [
            _spared(float(np.mean(b)), float(np.mean(s)))
            for b, s in zip(silent["base"], silent[arm], strict=True)
        ]
        rows.append(
            Row("all", "end", f"{arm}: deaths avoided", overall, "0", _says(study, arm, overall))
        )
    data = {"arms": trained, "silent": silent, "losses": losses,
            "what": {arm: ALL_ARMS[arm].what for arm in trained}}  # fmt: skip
    every = [run for of in runs.values() for run in of]
    return Result(
        "intervene", QUESTION, PREDICTIONS, rows, _conclusion(silent, losses), data, every
    )


def silent_share(run: Run) -> list[float]:
    """Share of each layer's units that are on at no token of the last probe, (L,)."""
    counts = run.counts(probes_of(run)[-1]["step"])
    return [float(np.mean(on == 0)) for on in counts.tokens_on]


def _spared(before: float, after: float) -> float:
    """Share of the silent units that a change spares; below 0 where more are silent."""
    return (before - after) / before if before else float("nan")


def _says(study: Study, arm: str, spared: list[float]) -> str:
    """What the change of an arm tells, by the thresholds of the plan."""
    share = float(np.nanmean(spared)) if not np.isnan(spared).all() else float("nan")
    if arm == "unit_clip":
        if share >= study.plan.avoided:
            return "O"
        return "RDG" if share <= study.plan.unmoved else NOTHING
    if arm == "centre" and share >= study.plan.avoided:
        return "G"
    return NOTHING


def _conclusion(silent: dict[str, list[list[float]]], losses: dict[str, list[float]]) -> str:
    mean = {arm: float(np.mean(of)) for arm, of in silent.items()}
    best = min(mean, key=mean.__getitem__)
    change = float(np.mean(losses[best])) - float(np.mean(losses["base"]))
    if best == "base":
        return "No change of the training left fewer units silent than the base."
    return (
        f"Fewest units are silent with {best}: {100 * mean[best]:.1f} % instead of "
        f"{100 * mean['base']:.1f} %, at a loss {change:+.3f} nats from the base."
    )
