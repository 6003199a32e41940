"""Numbers that take runs of several widths or depths: one seed, a run for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from minirelu.claims.probes import Reading, course
from minirelu.runs.run import Run

Family = Sequence[Run]  # of one seed, alike in all but one setting, lowest first


def slope_with_width(measure: str) -> Callable[[Family], Reading]:
    """Change of a share of use (mean of the layers, at the end) for each doubling of d_mlp."""

    def read(family: Family) -> Reading:
        doublings = np.log2([run.config.mlp_widths[0] for run in family])
        use = [course(run, measure).end.mean() for run in family]
        return Reading(float(np.polyfit(doublings, use, 1)[0]), 0.0)

    return read


def weakest_with_depth(family: Family) -> Reading:
    """Last layer less first, use per batch, at the depth where it is weakest; 0 if signs differ."""
    ends = [course(run, "per_batch", layers=2).end for run in family]
    differences = np.array([end[-1] - end[0] for end in ends])
    if (differences > 0).any() and (differences < 0).any():
        return Reading(0.0, 0.0)
    return Reading(float(differences[np.abs(differences).argmin()]), 0.0)
