"""What an experiment found: its statistic, its null, and which explanation that speaks for.

There are four explanations of why units go silent. What each of them predicts of an experiment, and
the thresholds that decide, are fixed before anything is trained (``minirelu.death.study.Plan``).
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minirelu.death.experiments import EXPERIMENTS
from minirelu.death.study import Study
from minirelu.errors import UserError, shown
from minirelu.intervals import Estimate, over_seeds
from minirelu.runs.files import explained, read_json, write_text
from minirelu.runs.prepare import made_with
from minirelu.runs.run import Run

EXPLANATIONS = {
    "R": "random: who dies, and when, is chance",
    "O": "outliers: single batches or spikes of the gradient do it",
    "D": "drift: the dynamics of training push units steadily down",
    "G": "geometry: it is written in the initial weights",
}
NOTHING = "-"  # speaks for none of them


@dataclass(frozen=True)
class Row:
    """One line of a verdict.

    ``where`` is a layer ("2") or all of them ("all"), ``phase`` the steps, ``values`` the
    statistic of each seed (NaN where it could not be told), ``null`` what it is if nothing is
    behind it, ``says`` the letters of the explanations that it speaks for, or "-".
    """

    where: str
    phase: str
    statistic: str
    values: Sequence[float]
    null: str
    says: str

    @property
    def estimate(self) -> Estimate:
        """Mean over the seeds, with its 95 % interval; NaN without any."""
        if np.isnan(self.values).all():
            return Estimate(math.nan, math.nan, math.nan)
        return over_seeds(self.values)


@dataclass
class Result:
    """What an experiment found.

    Attributes
    ----------
    experiment : str
    predictions : dict
        what each explanation predicts, by its letter.
    rows : list of Row
    conclusion : str
        one or two sentences.
    data : dict
        plain values behind the figure.
    runs : list of Run
        that it stands on.
    arm : str
        of the study, that it was about.
    """

    experiment: str
    predictions: Mapping[str, str]
    rows: list[Row]
    conclusion: str
    data: dict[str, Any]
    runs: Sequence[Run] = field(default=())
    arm: str = "base"

    def as_json(self, study: Study) -> dict[str, Any]:
        """Everything, and everything it depends on."""
        rows = []
        for row in self.rows:
            mean, low, high = row.estimate
            rows.append({**vars(row), "mean": mean, "low": low, "high": high})
        content = {
            "experiment": self.experiment,
            "arm": self.arm,
            "question": EXPERIMENTS[self.experiment].what,
            "predictions": dict(self.predictions),
            "plan": vars(study.plan),
            "rows": rows,
            "conclusion": self.conclusion,
            "settings": study.base.tables(),
            "made_with": made_with(),
            "runs": [facts(run) for run in self.runs],
            "data": self.data,
        }
        return _plain(content)


def facts(run: Run) -> dict[str, Any]:
    """What must be known of a run to do it again, and how far it has come."""
    train, last = run.settings.train, run.probes()[-1]
    return {
        "run": run.name,
        "seed": train.seed,
        "data_seed": train.batch_seed,
        "step": last["step"],
        "tokens": last["tokens"],
        "val_loss": last["val_loss"],
        "corpus_sha256": run.corpus["sha256"],
        "made_with": run.made_with,
    }


def _plain(value: Any) -> Any:
    """The same for JSON: arrays as lists, NaN as None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(v) for key, v in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_result(result: Result, study: Study) -> dict[str, Any]:
    """Write ``results/NAME.json`` and its rows as ``NAME.csv``; return the content.

    The name is that of the experiment, followed by the arm if that is not ``base``.
    """
    content, folder = result.as_json(study), study.folder / "results"
    name = result_name(result.experiment, result.arm)
    text = io.StringIO()
    columns = ("where", "phase", "statistic", "mean", "low", "high", "null", "says")
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(content["rows"])
    with explained(f"writing the results of {result.experiment}"):
        folder.mkdir(exist_ok=True)
        write_text(folder / f"{name}.json", json.dumps(content, indent=1))
        write_text(folder / f"{name}.csv", text.getvalue())
    return content


def result_name(experiment: str, arm: str = "base") -> str:
    """Of the files of a result.

    >>> result_name("burst"), result_name("burst", "l1")
    ('burst', 'burst-l1')
    """
    return experiment if arm == "base" else f"{experiment}-{arm}"


def read_result(study: Study, experiment: str, arm: str = "base") -> dict[str, Any] | None:
    """Read what :func:`write_result` wrote; None where the experiment was not done."""
    file = study.folder / "results" / f"{result_name(experiment, arm)}.json"
    if not file.is_file():
        return None
    content = read_json(file)
    if not isinstance(content, dict) or content.get("experiment") != experiment:
        raise UserError(f"{shown(file)} is damaged: it is not the result of {experiment}")
    return content
