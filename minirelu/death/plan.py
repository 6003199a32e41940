"""How much a study measures, and the thresholds of its verdicts."""

from __future__ import annotations

from dataclasses import dataclass

from minirelu.settings import Checked, setting


@dataclass(frozen=True)
class Plan(Checked):
    """How much is measured, and the thresholds of every verdict: set before a run is trained."""

    seeds: int = setting(int, "Runs of each arm.", default=5, low=2, high=1000)
    successive: int = setting(
        int, "Silent records in a row that make a death.", default=3, low=1, high=1000
    )
    swaps: int = setting(
        int, "replay: other batches that a batch is swapped for.", default=6, low=2, high=1000
    )
    twins_ratio: float = setting(
        float, "twins: overlap is above its null where it is this many times as large, ",
        default=1.2, low=1, high=100,
    )  # fmt: skip
    significance: float = setting(
        float, "Level at which a null is rejected.", default=0.05, low=1e-9, high=0.5
    )
    avoided: float = setting(
        float, "replay, intervene: share of deaths avoided that counts as an effect.",
        default=0.5, low=0, high=1,
    )  # fmt: skip
    unmoved: float = setting(
        float, "replay, intervene: share of deaths avoided that counts as none.",
        default=0.1, low=0, high=1,
    )  # fmt: skip
    largest_step: float = setting(
        float, "approach: how far from a walk's largest step to the whole descent a jump goes.",
        default=0.5, low=0, high=1,
    )  # fmt: skip
    fano: float = setting(
        float, "burst: Fano factor above which deaths come in bursts.", default=2.0, low=1, high=100
    )
    auc: float = setting(
        float, "predict: AUC from which on a feature predicts.", default=0.7, low=0.5, high=1
    )
    auc_gain: float = setting(
        float, "predict: what a feature must add to the AUC of the margin.", default=0.02, low=0,
        high=0.5,
    )  # fmt: skip
    flicker: float = setting(
        float, "revive: returns are flicker up to this many times as many as expected of it.",
        default=1.5, low=1, high=100,
    )  # fmt: skip
