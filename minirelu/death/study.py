"""A study: trainings of one model over several seeds, in arms that differ in one thing each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minirelu.config import SECTIONS, Config, TrainConfig, read_toml
from minirelu.death.plan import Plan
from minirelu.errors import UserError, nearest, one_line, shown
from minirelu.runs.files import explained, write_text
from minirelu.runs.prepare import made_with
from minirelu.runs.run import Run
from minirelu.sweeps.folder import is_finished, open_run
from minirelu.sweeps.running import Watching, run_points
from minirelu.sweeps.sweep import Point


@dataclass(frozen=True)
class Arm:
    """What its runs have that those of ``base`` don't: ``changes``, made from the base's training.

    ``source`` is where the remedy, or the claim, comes from; ``history``: whether its units are
    followed, or only counted at the end.
    """

    what: str
    changes: Changes = lambda train: {}
    source: str = ""
    history: bool = False


Changes = Callable[[TrainConfig], Mapping[str, Mapping[str, Any]]]


def _train(**values: Any) -> Changes:
    return lambda train: {"train": values}


def _act(*texts: str) -> Changes:
    return _train(intervene=texts)


def _clip(to: str) -> Changes:
    # An update of Adam is about as long as the rate; six times that is rare (below 1 %).
    def changes(train: TrainConfig) -> Mapping[str, Mapping[str, Any]]:
        return _act(f"unit_clip largest={6 * train.learning_rate:g} to={to}")(train)

    return changes


def _redo(train: TrainConfig) -> Mapping[str, Mapping[str, Any]]:
    # It ends before the run does: what was drawn anew just before it would count as spared.
    tenth = max(1, train.steps // 10)
    return _act(f"redo tau=0.025 every={tenth} last={8 * tenth}")(train)


def _replace(train: TrainConfig) -> Mapping[str, Mapping[str, Any]]:
    tenth = max(1, train.steps // 10)
    return _act(f"replace rate=1e-3 maturity={tenth} last={8 * tenth}")(train)


def _rate(factor: float) -> Changes:
    return lambda train: {"train": {"learning_rate": factor * train.learning_rate}}


def _warmup(share: float) -> Changes:
    return lambda train: {"train": {"warmup_steps": round(share * train.steps)}}


def _sgd(train: TrainConfig) -> Mapping[str, Mapping[str, Any]]:
    return {"train": {"optimizer": "sgd_momentum", "learning_rate": 20 * train.learning_rate}}


# The arms there are. One is special: ``twin`` has the initial weights of its seed, and the batches
# of the next one.
ARMS: dict[str, Arm] = {
    "base": Arm("the settings of the study", history=True),
    "twin": Arm("same initial weights, other batches", history=True),
    "half_rate": Arm("half the learning rate", _rate(0.5), history=True),
    "double_rate": Arm("twice the learning rate", _rate(2), history=True),
    "unit_clip": Arm(
        "large updates of a unit are clipped", _clip("large"),
        "after Brock et al. 2021, arXiv 2102.06171",
    ),
    "clip_others": Arm(
        "as many units, drawn at random, are clipped as much",
        _clip("random"), "control of unit_clip",
    ),
    "centre": Arm(
        "the mean is taken out of the MLPs' input", _act("centre"),
        "Wiesler et al. 2014; Salimans & Kingma 2016, arXiv 1602.07868",
    ),
    "frozen_embeddings": Arm(
        "embeddings stay as they were drawn", _act("freeze params=embed.*,pos_embed.*")
    ),
    "frozen_keys": Arm(
        "what hidden units look for stays as it was drawn", _act("freeze params=*.W_in,*.b_in")
    ),
    "no_warmup": Arm("full rate from the first step", _warmup(0)),
    "warmup_5": Arm("warm-up over 5 % of the steps", _warmup(0.05)),
    "warmup_50": Arm("warm-up over half of the steps", _warmup(0.5)),
    "slow_beta2": Arm("Adam's beta2 is 0.999", _train(beta2=0.999)),
    "no_decay": Arm("no weight decay", _train(weight_decay=0.0)),
    "no_biases": Arm("no biases anywhere", lambda train: {"model": {"bias": False}}),
    "sgd": Arm("SGD with momentum, 20 times the rate", _sgd),
    "l1": Arm("an L1 penalty of 1e-4 on the activations", _train(l1=1e-4), history=True),
    "redo": Arm(
        "dormant units are drawn anew every 32 steps", _redo,
        "Sokar et al. 2023, arXiv 2302.12902",
    ),
    "replace": Arm(
        "units of the lowest utility are drawn anew", _replace,
        "Dohare et al. 2024, arXiv 2306.13812",
    ),
}  # fmt: skip


# Those that keep optimizer states, to rewind to and to split updates at.
FOLLOWED = ("base", "l1")


def default_grid(train: TrainConfig) -> dict[str, Any]:
    """When to look: 40 records of a training, and states to branch off at every tenth of it."""
    every = max(1, train.steps // 40)
    tenth = max(1, train.steps // 10)
    return {
        "history_every": every,
        "keep_optimizer_at": tuple(sorted({tenth // 2, *range(tenth, train.steps, tenth)} - {0})),
    }


@dataclass(frozen=True)
class Study:
    """The folder of a study: ``study.toml``, ``runs/``, ``results/`` and ``figures/``.

    Attributes
    ----------
    folder : Path
    base : Config
        settings of the first run of the arm ``base``; the others have later seeds.
    plan : Plan
    on_progress : callable
        called by what takes long, with how much was just done and how much there is in all.
    """

    folder: Path
    base: Config
    plan: Plan
    on_progress: Callable[[int, int], None] = field(default=lambda n, of: None, compare=False)

    @classmethod
    def open(cls, folder: str | Path) -> Study:
        """Read ``study.toml``; raises a UserError where there is none, or it is damaged."""
        file = Path(folder) / "study.toml"
        if not file.is_file():
            raise UserError(f"no study in {shown(folder)}: it has no study.toml")
        tables = read_toml(file)
        plan = tables.pop("study", None)
        base = Config.from_tables(tables, f"{shown(file)}: ")
        try:
            return cls(Path(folder), base, Plan(**plan))
        except TypeError:
            raise UserError(f"{shown(file)} is damaged: its [study] is not complete") from None

    @classmethod
    def make(cls, folder: str | Path, base: Config, plan: Plan) -> Study:
        """Begin a study, or go on with the same one.

        Raises
        ------
        UserError
            the folder holds another study (what differs is named), or something else.
        """
        folder = Path(folder)
        study = cls(folder, base, plan)
        if (folder / "study.toml").is_file():
            known = cls.open(folder)
            changed = known.base.differences(base)
            changed += [
                f"{f.name}: {getattr(known.plan, f.name)}, not {getattr(plan, f.name)}"
                for f in dataclasses.fields(plan)
                if getattr(known.plan, f.name) != getattr(plan, f.name)
            ]
            if changed:
                raise UserError(
                    f"{shown(folder)} holds another study ({one_line('; '.join(changed))}); "
                    "choose another folder"
                )
            return known
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{shown(folder)} exists and is not a study; choose another folder")
        with explained(f"making the study {shown(folder)}"):
            (folder / "runs").mkdir(parents=True, exist_ok=True)
            table = dataclasses.asdict(plan)
            write_text(folder / "study.toml", base.to_toml(study=table, made_with=made_with()))
        return study

    @property
    def runs_folder(self) -> Path:
        """Where the run folders are."""
        return self.folder / "runs"

    def points(self, arm: str) -> list[Point]:
        """The runs of an arm, seed by seed."""
        if arm not in ARMS:
            raise UserError(f"there is no arm {one_line(repr(arm))}{nearest(arm, ARMS)}")
        points, first = [], self.base.train.seed
        for i in range(self.plan.seeds):
            tables = self.base.tables()
            for section, values in ARMS[arm].changes(self.base.train).items():
                tables[section] |= values
            data = (i + 1) % self.plan.seeds if arm == "twin" else i
            tables["train"] |= {"seed": first + i, "data_seed": first + data}
            if arm not in FOLLOWED:
                tables["train"]["keep_optimizer_at"] = ()
            if not ARMS[arm].history:
                tables["train"]["history_every"] = 0
            settings = Config.from_tables({name: tables[name] for name in SECTIONS})
            values = {"arm": arm, "seed": first + i}
            points.append(Point(f"{arm},seed={first + i}", values, settings))
        return points

    def missing(self, arms: Sequence[str]) -> list[Point]:
        """Runs of these arms that are not finished, seed by seed."""
        by_arm = [self.points(arm) for arm in dict.fromkeys(arms)]
        points = [point for of_seed in zip(*by_arm, strict=True) for point in of_seed]
        return [point for point in points if not is_finished(self.runs_folder, point)]

    def train(
        self, arms: Sequence[str], workers: int = 1, watching: Watching | None = None
    ) -> None:
        """Train what is missing.

        Raises
        ------
        UserError
            a run failed.
        """
        points = self.missing(arms)
        if not points:
            return
        first = self.points("base")[0]  # whose text the others copy
        points = [first, *(p for p in points if p.name != first.name)]
        self.runs_folder.mkdir(parents=True, exist_ok=True)
        failures = run_points(points, self.runs_folder, workers, None, watching)
        for name, why in failures.items():
            raise UserError(
                f"{len(failures)} of {len(points)} runs failed, among them {name}: {why}"
            )

    def runs(self, arm: str) -> list[Run]:
        """The finished runs of an arm, one for each seed.

        Raises
        ------
        UserError
            some are not finished.
        """
        runs = [open_run(self.runs_folder, point) for point in self.points(arm)]
        unfinished = self.missing([arm])
        if unfinished:
            raise UserError(f"{shown(self.folder)}: {unfinished[0].name} is not trained to its end")
        return [run for run in runs if run is not None]
