"""Trials: the same budget spent in several ways, over seeds; which way gives the best model?

Two questions are put to one. Is a large model that was trained, pruned and trained on any better
than one pruned at random, or than the small one trained from scratch (Liu et al. 2019,
arXiv 1810.05270)? And are widths that were measured to be needed any better than as many units
spread evenly?
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minirelu.config import Config
from minirelu.errors import UserError, shown
from minirelu.intervals import over_seeds
from minirelu.model.parameters import Parameters, init_params, n_params
from minirelu.pruning.curves import quality
from minirelu.pruning.pruned_run import pruned_run, pruned_settings
from minirelu.pruning.speed import step_seconds
from minirelu.runs.run import Run
from minirelu.sweeps.folder import is_finished, open_run
from minirelu.sweeps.running import Watching, run_points
from minirelu.sweeps.sweep import Point
from minirelu.text.batches import batch

# Before this step a training is taken as dense, as in ``minirelu.estimate``.
DENSE_STEPS = 150


@dataclass(frozen=True)
class Arm:
    """A way to spend the budget: ``what`` it is, and its runs, seed by seed."""

    what: str
    points: list[Point]


def arm(name: str, what: str, settings: Sequence[Config]) -> Arm:
    """Name the runs of an arm by the arm and their seeds."""
    return Arm(
        what,
        [
            Point(f"{name},seed={s.train.seed}", {"arm": name, "seed": s.train.seed}, s)
            for s in settings
        ],
    )


def train_arms(
    arms: Mapping[str, Arm], folder: Path, workers: int = 1, watching: Watching | None = None
) -> None:
    """Train what is not finished, seed by seed; raises a UserError where a run failed."""
    points = [
        p for of_seed in zip(*(a.points for a in arms.values()), strict=True) for p in of_seed
    ]
    left = [point for point in points if not is_finished(folder, point)]
    if not left:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, why in run_points(left, folder, workers, None, watching).items():
        raise UserError(f"{name} failed: {why}")


def results(arms: Mapping[str, Arm], folder: Path, tokens: int, base: str) -> list[dict[str, Any]]:
    """Measure what each arm came to, on the same held-out text.

    Returns
    -------
    list of dict
        for each arm ``arm``, ``what``, ``steps`` and ``parameters`` (means), ``widths`` (of the
        first seed), ``loss`` and ``accuracy`` (seed by seed), and ``against``: the loss less that
        of ``base`` with the same seed: mean, and 95 % interval over seeds.
    """
    rows = []
    for name, of_arm in arms.items():
        runs = [open_run(folder, point) for point in of_arm.points]
        if any(not is_finished(folder, point) for point in of_arm.points):
            raise UserError(f"{shown(folder)}: {name} is not trained to its end")
        found = [
            quality(run.params(), held_out(run, tokens), run.config, run.settings.train.compute)
            for run in runs
            if run
        ]
        rows.append(
            {
                "arm": name,
                "what": of_arm.what,
                "seeds": [point.values["seed"] for point in of_arm.points],
                "steps": [p.settings.train.steps for p in of_arm.points],
                "parameters": [n_params(run.config) for run in runs if run],
                "widths": [list(run.config.mlp_widths) for run in runs if run],
                "loss": [q.loss for q in found],
                "accuracy": [q.accuracy for q in found],
            }
        )
    of_base = next(row for row in rows if row["arm"] == base)
    for row in rows:
        difference = np.subtract(row["loss"], of_base["loss"])
        mean, low, high = over_seeds(difference)
        known = math.isfinite(low)
        row["against"] = {
            "base": base, "mean": mean, "low": low if known else None,
            "high": high if known else None,
        }  # fmt: skip
    return rows


def held_out(run: Run, tokens: int) -> np.ndarray:
    """Sequences (S, T + 1) of the text that a run held out, evenly spread over it."""
    from minirelu.text.batches import make_probe, open_tokens

    return make_probe(open_tokens(run.folder / "tokens" / "val.npy"), tokens, run.config.n_ctx)


def trained_on(run: Run, tokens: int) -> np.ndarray:
    """Sequences (S, T + 1) of the text that a run was trained on, evenly spread over it."""
    from minirelu.text.batches import make_probe

    return make_probe(run.train_tokens, tokens, run.config.n_ctx)


def a_batch(run: Run) -> np.ndarray:
    """The batch that comes after a run's last step, to time steps on."""
    train = run.settings.train
    return batch(
        run.train_tokens, train.steps + 1, train.batch_size, run.config.n_ctx, train.batch_seed
    )


def time_ratio(large: Parameters, small: Parameters, run: Run) -> tuple[float, float]:
    """Time of a step of the large model over that of the small one: when new, and as they are."""
    text, settings = a_batch(run), run.settings.train
    ratios = []
    for models in ([init_params(p.config) for p in (large, small)], [large, small]):
        slow, fast = step_seconds(models, text, settings)
        ratios.append(slow / fast)
    return ratios[0], ratios[1]


Choose = Callable[[Run, str], list[np.ndarray]]  # which units of a run stay, by a criterion


def pruning_arms(
    parents: Sequence[Run], choose: Choose, by: str, fine_tune: int, folder: Path
) -> dict[str, Arm]:
    """Make the arms that show what pruning is worth; those that begin pruned are written.

    Parameters
    ----------
    parents : sequence of Run
        finished, one for each seed.
    choose : callable
        gives the units to keep by a criterion; "random" has to keep as many in each layer.
    by : str
    fine_tune : int
        steps after the pruning.
    folder : Path
        of the trial.

    Returns
    -------
    dict of Arm
        ``unpruned``: every unit stays. ``pruned``, ``random``: as many go. ``scratch steps``: the
        small model from new weights, for as many steps as parent and fine-tuning together; and
        ``scratch time``: for as long, at the small model's speed.
    """
    settings: dict[str, list[Config]] = {
        name: [] for name in ("unpruned", "pruned", "random", "scratch steps", "scratch time")
    }
    for parent in parents:
        step = parent.steps[-1]
        seed = parent.settings.train.seed
        whole = [np.ones(F, bool) for F in parent.config.mlp_widths]
        chosen = choose(parent, by)
        masks = {"unpruned": whole, "pruned": chosen, "random": choose(parent, "random")}
        for name, mask in masks.items():
            settings[name].append(pruned_settings(parent, step, mask, fine_tune))
            target = folder / f"{name},seed={seed}"
            if not (target / "config.toml").is_file():
                said = {"pruned": by, "random": "chance"}.get(name, "")
                pruned_run(parent, step, mask, target, fine_tune, said)
        small = settings["pruned"][-1].model
        target = folder / f"scratch time,seed={seed}"
        if (target / "config.toml").is_file():  # the number of steps was measured before
            equal_time = Run.open(target).settings.train.steps
        else:
            left = Run.open(folder / f"pruned,seed={seed}").params(step)
            new, trained = time_ratio(parent.params(step), left, parent)
            dense = min(DENSE_STEPS, step)
            equal_time = round(dense * new + (step - dense) * trained) + fine_tune
        for name, steps in (("scratch steps", step + fine_tune), ("scratch time", equal_time)):
            train = dataclasses.replace(parent.settings.train, steps=steps)
            settings[name].append(dataclasses.replace(parent.settings, model=small, train=train))
    what = {
        "unpruned": f"every unit stays, {fine_tune} steps more",
        "pruned": f"pruned by {by}, {fine_tune} steps more",
        "random": f"as many units of each layer removed at random, {fine_tune} steps more",
        "scratch steps": "the small model from new weights, for as many steps in all",
        "scratch time": "the small model from new weights, for as much time in all",
    }
    return {name: arm(name, what[name], of_arm) for name, of_arm in settings.items()}
