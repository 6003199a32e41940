"""Trials: the same budget spent in several ways, over seeds; which way gives the best model?

Two questions are put to one. Is a large model that was trained, pruned and trained on any better
than one pruned at random, or than the small one trained from scratch (Liu et al. 2019,
arXiv 1810.05270)? And are widths that were measured to be needed any better than as many units
spread evenly?
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minirelu.config import Config
from minirelu.errors import UserError, shown
from minirelu.intervals import over_seeds
from minirelu.model.parameters import Parameters, init_params, n_params
from minirelu.pruning.choice import Choice
from minirelu.pruning.curves import quality
from minirelu.pruning.pruned_run import pruned_run
from minirelu.pruning.rankings import keep_widths, scores
from minirelu.pruning.speed import step_seconds
from minirelu.pruning.texts import next_batch
from minirelu.runs.checkpoint import MODEL, load_params, load_state
from minirelu.runs.files import explained, read_json, write_text
from minirelu.runs.run import Run
from minirelu.sweeps.folder import is_finished, open_run
from minirelu.sweeps.running import Watching, run_points
from minirelu.sweeps.sweep import Point

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


def begin(folder: Path, what: Mapping[str, Any]) -> None:
    """Make a trial's folder, or go on with the same one; ``trial.json`` says what it tries.

    Raises
    ------
    UserError
        the folder holds another trial, or something else.
    """
    file = folder / "trial.json"
    text = json.dumps(what, indent=1, sort_keys=True)
    if file.is_file():
        known, now = read_json(file), json.loads(text)
        if changed := [name for name in now if known.get(name) != now[name]]:
            raise UserError(
                f"{shown(folder)} holds another trial (other {', '.join(changed)}); choose another "
                "folder"
            )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{shown(folder)} exists and is not a trial; choose another folder")
    with explained(f"making the folder {shown(folder)}"):
        folder.mkdir(parents=True, exist_ok=True)
        write_text(file, text)


def weights_of(run: Run) -> str:
    """Digest of a run's last weights."""
    return str(load_state(run.checkpoints, run.steps[-1])["sha256"][MODEL])


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
    rows: list[dict[str, Any]] = []
    for name, of_arm in arms.items():
        runs = [open_run(folder, point) for point in of_arm.points]
        if any(not is_finished(folder, point) for point in of_arm.points):
            raise UserError(f"{shown(folder)}: {name} is not trained to its end")
        found = [
            quality(run.params(), run.held_out(tokens), run.config, run.settings.train.compute)
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


def time_ratio(large: Parameters, small: Parameters, run: Run) -> tuple[float, float]:
    """Time of a step of the large model over that of the small one: when new, and as they are."""
    text, settings = next_batch(run, run.steps[-1]), run.settings.train
    ratios = []
    for models in ([init_params(p.config) for p in (large, small)], [large, small]):
        slow, fast = step_seconds(models, text, settings)
        ratios.append(slow / fast)
    return ratios[0], ratios[1]


def pruning_arms(
    parents: Sequence[Run], choice: Choice, fine_tune: int, folder: Path
) -> dict[str, Arm]:
    """Make the arms that show what pruning is worth; those that begin pruned are written.

    Parameters
    ----------
    parents : sequence of Run
        finished, one for each seed.
    choice : Choice
        how units are chosen, in each parent anew.
    fine_tune : int
        steps after the pruning.
    folder : Path
        of the trial.

    Returns
    -------
    dict of Arm
        ``unpruned``: every unit stays. ``pruned``; and ``random``: as many units of each layer go,
        whichever. ``scratch steps``: the small model from new weights, for as many steps as parent
        and fine-tuning together; and ``scratch time``: for as long, at the small model's speed.
    """
    begin(
        folder,
        {
            **dataclasses.asdict(choice),
            "fine_tune": fine_tune,
            "runs": {run.settings.train.seed: weights_of(run) for run in parents},
        },
    )
    settings: dict[str, list[Config]] = {
        name: [] for name in ("unpruned", "pruned", "random", "scratch steps", "scratch time")
    }
    begun = ("unpruned", "pruned", "random")  # with the weights of a parent
    for parent in parents:
        step, seed = parent.steps[-1], parent.settings.train.seed
        places = {name: folder / f"{name},seed={seed}" for name in settings}
        if not all((places[name] / "config.toml").is_file() for name in begun):
            found = choice.evidence(parent, step)
            stay = choice.keep(parent, found)
            widths = [int(k.sum()) for k in stay]
            masks = {
                "unpruned": [np.ones(F, bool) for F in parent.config.mlp_widths],
                "pruned": stay,
                "random": keep_widths(scores(found, "random"), widths, seed),
            }
            by = {"unpruned": "", "pruned": choice.by, "random": "chance"}
            for name in begun:
                if not (places[name] / "config.toml").is_file():
                    pruned_run(parent, step, masks[name], places[name], fine_tune, by[name])
        for name in begun:
            settings[name].append(Run.open(places[name]).settings)
        small = settings["pruned"][-1].model
        if (places["scratch time"] / "config.toml").is_file():  # it was measured before
            equal_time = Run.open(places["scratch time"]).settings.train.steps
        else:
            left = load_params(places["pruned"] / "checkpoints", step, small)
            new, trained = time_ratio(parent.params(step), left, parent)
            dense = min(DENSE_STEPS, step)
            equal_time = round(dense * new + (step - dense) * trained) + fine_tune
        for name, steps in (("scratch steps", step + fine_tune), ("scratch time", equal_time)):
            train = dataclasses.replace(parent.settings.train, steps=steps)
            settings[name].append(dataclasses.replace(parent.settings, model=small, train=train))
    what = {
        "unpruned": f"every unit stays, {fine_tune} steps more",
        "pruned": f"pruned by {choice.by}, {fine_tune} steps more",
        "random": f"as many units of each layer removed at random, {fine_tune} steps more",
        "scratch steps": "the small model from new weights, for as many steps in all",
        "scratch time": "the small model from new weights, for as much time in all",
    }
    return {name: arm(name, what[name], of_arm) for name, of_arm in settings.items()}
