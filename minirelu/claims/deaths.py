"""Numbers that a study of neuron death gives, seed by seed, from its results."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from minirelu.claims.probes import Missing, Reading
from minirelu.death.study import Study
from minirelu.death.verdicts import read_result
from minirelu.errors import command, shown


def statistic(experiment: str, value: str, null: str | float) -> Callable[[Study], list[Reading]]:
    """Read a statistic of an experiment, and its null, which is another one or a number.

    Returns
    -------
    callable
        from a study to a reading for each of its seeds.
    """

    def read(study: Study) -> list[Reading]:
        values = _of_seeds(study, experiment, value)
        nulls = (
            _of_seeds(study, experiment, null) if isinstance(null, str) else [null] * len(values)
        )
        return [Reading(v, n) for v, n in zip(values, nulls, strict=True)]

    return read


def _of_seeds(study: Study, experiment: str, name: str) -> list[float]:
    """Seed by seed, at the last phase: of all layers together, or the mean of the layers.

    Layers in which too few units died to tell have no number, and are left out.
    """
    found = read_result(study, experiment)
    rows = [row for row in found["rows"] if row["statistic"] == name] if found else []
    if not rows:
        raise Missing(
            f"it needs the experiment {experiment}, and {shown(study.folder)} lacks it: "
            f"{command(f'death {experiment} --out', study.folder)}"
        )
    rows = [row for row in rows if row["phase"] == rows[-1]["phase"]]
    rows = [row for row in rows if row["where"] == "all"] or rows
    seeds: list[list[float]] = [[] for _ in range(study.plan.seeds)]
    for row in rows:
        if len(row["values"]) == len(seeds):
            for of_seed, v in zip(seeds, row["values"], strict=True):
                of_seed += [] if v is None else [v]
    return [float(np.mean(of_seed)) if of_seed else math.nan for of_seed in seeds]
