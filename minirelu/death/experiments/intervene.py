"""Intervene: train again with one thing changed, and compare who is silent at the end."""

from __future__ import annotations

import numpy as np

from minirelu.death.study import ARMS as ALL_ARMS
from minirelu.death.study import Study
from minirelu.death.verdicts import NOTHING, Result, Row
from minirelu.runs.run import Run, probes_of

ARMS = tuple(arm for arm in ALL_ARMS if arm != "twin")
PREDICTIONS = {
    "R": "no change of single steps matters",
    "O": "clipping a unit's largest updates, fewer than 1 %, spares half or more of them",
    "D": "clipping spares less than a tenth; a lower rate, or less decay, spares in proportion",
    "G": "taking the mean out of the MLP's input spares most",
}


def run(study: Study) -> Result:
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
    conclusion = _conclusion(rows, silent, losses)
    return Result("intervene", PREDICTIONS, rows, conclusion, data, every)


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


def _conclusion(
    rows: list[Row], silent: dict[str, list[list[float]]], losses: dict[str, list[float]]
) -> str:
    spared = {
        row.statistic.partition(":")[0]: row.estimate
        for row in rows
        if row.where == "all" and row.statistic.endswith("deaths avoided")
    }
    sure = {arm: e for arm, e in spared.items() if e.low > 0}
    if not sure:
        return f"None of {len(spared)} changes spared units by more than seeds differ."
    best = max(sure, key=lambda arm: sure[arm].value)
    shares = [100 * float(np.mean(silent[arm])) for arm in (best, "base")]
    change = float(np.mean(losses[best])) - float(np.mean(losses["base"]))
    return (
        f"{len(sure)} of {len(spared)} changes spared units by more than seeds differ; most did "
        f"{best}: {shares[0]:.1f} % are silent at the end instead of {shares[1]:.1f} %, at a loss "
        f"{change:+.3f} nats from the base."
    )
