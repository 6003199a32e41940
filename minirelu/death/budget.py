"""What fits a time budget: how large a model, how many arms and seeds; and what is given up."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from minirelu.config import Config
from minirelu.death.study import ARMS, Plan, default_grid
from minirelu.errors import UserError

# Without these there is no verdict; the other arms are remedies and doses.
CORE = ("base", "twin", "half_rate", "double_rate", "unit_clip", "clip_others")
# From the largest to the smallest: a name, the preset, settings on top of it.
SIZES: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "small": ("plain", {"train": {"steps": 320}}),
    "reduced": (
        "plain",
        {
            "model": dict(n_layers=4, n_heads=2, d_model=64, d_mlp=1024, n_ctx=128, d_vocab=1024),
            "train": dict(steps=320, batch_size=16, learning_rate=1e-2),
        },
    ),
    "tiny": ("tiny", {"train": {"learning_rate": 2e-2, "batch_size": 16}}),
}
_HISTORY = 1.5  # what a history adds to the time of a training, as a factor


class Fit(NamedTuple):
    """What is to be done in a budget, and ``given_up``, a sentence for each thing left out."""

    size: str
    base: Config
    plan: Plan
    arms: tuple[str, ...]
    seconds: float
    given_up: list[str]


def seconds_of(plan: Plan, arms: tuple[str, ...], workers: int, run_seconds: float) -> float:
    """Expected seconds of all trainings of some arms and of the replays."""
    trainings = plan.seeds * sum(_HISTORY if ARMS[arm].history else 1 for arm in arms)
    replays = plan.seeds * (2 * plan.swaps + 4) / 10  # of a tenth of the steps each
    return run_seconds * (trainings / workers + replays)


def fit(
    budget: float,
    workers: int,
    sizes: Mapping[str, Config],
    plan: Plan,
    run_seconds: Callable[[Config], float],
) -> Fit:
    """Choose the largest size whose trainings fit; first arms are given up, then seeds.

    Parameters
    ----------
    budget : float
        seconds.
    workers : int
    sizes : mapping of Config
        by name, from the largest on.
    plan : Plan
    run_seconds : callable
        expected seconds of one training.

    Raises
    ------
    UserError
        not even the smallest fits: says how long that takes.
    """
    fewer_swaps = dataclasses.replace(plan, swaps=min(plan.swaps, 3))
    fewer_seeds = dataclasses.replace(fewer_swaps, seeds=min(plan.seeds, 3))
    left_out = (
        f"the arms beside {', '.join(CORE)}: remedies and doses, which minirelu death intervene has"
    )
    choices: list[tuple[Plan, tuple[str, ...], list[str]]] = [
        (plan, tuple(ARMS), []),
        (fewer_swaps, CORE, [left_out]),
    ]
    larger: list[str] = []
    for name, base in sizes.items():
        each = run_seconds(base)
        if name == list(sizes)[-1]:
            seeds = f"{plan.seeds - fewer_seeds.seeds} of {plan.seeds} seeds"
            choices.append((fewer_seeds, CORE, [left_out, seeds]))
        for reduced, arms, given_up in choices:
            seconds = seconds_of(reduced, arms, workers, each)
            if seconds <= budget:
                smaller = [f"models as large as {', '.join(larger)}"] if larger else []
                return Fit(name, base, reduced, arms, seconds, [*smaller, *given_up])
        larger.append(name)
    raise UserError(
        f"--budget: {budget / 60:.3g} minutes are too few; the smallest study takes about "
        f"{seconds / 60:.2g}"
    )


def configs() -> dict[str, Config]:
    """The settings of every size, with the grid of a study."""
    sizes = {}
    for name, (preset, options) in SIZES.items():
        train = Config.build(preset, None, options).train
        grid = {"snapshot_budget_gb": 0.3, **default_grid(train)}
        with_grid = {**options, "train": {**grid, **options.get("train", {})}}
        sizes[name] = Config.build(preset, None, with_grid)
    return sizes
