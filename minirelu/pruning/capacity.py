"""How many hidden units each layer needs, what fewer would save, and whether the advice is good."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from minirelu.config import Config
from minirelu.errors import UserError
from minirelu.estimate import flops, memory
from minirelu.model.parameters import Parameters, init_params
from minirelu.pruning.rankings import Scores, keep_widths
from minirelu.pruning.smaller import smaller
from minirelu.pruning.speed import step_seconds
from minirelu.pruning.texts import next_batch
from minirelu.pruning.trial import DENSE_STEPS, Arm, arm
from minirelu.runs.run import Run

LIMITS = (0.0, 0.001, 0.01)  # rises in loss, as shares of it, that the table asks about
MULTIPLE = 8  # advised widths are multiples of this


def advised_widths(needed: Sequence[int], d_mlp: Sequence[int]) -> tuple[int, ...]:
    """Round what layers need up to multiples of 8, but not beyond what they have.

    >>> advised_widths([3, 17, 100], [64, 64, 100])
    (8, 24, 100)
    """
    rounded = (max(1, -(-n // MULTIPLE)) * MULTIPLE for n in needed)
    return tuple(min(F, r) for F, r in zip(d_mlp, rounded, strict=True))


def with_widths(settings: Config, widths: Sequence[int]) -> Config:
    """Return the settings with other hidden widths; one number where all are the same."""
    d_mlp = widths[0] if len(set(widths)) == 1 else tuple(widths)
    return dataclasses.replace(settings, model=dataclasses.replace(settings.model, d_mlp=d_mlp))


def savings(settings: Config, advised: Config) -> list[dict[str, Any]]:
    """What a training needs now and as advised: arithmetic of a step, and memory.

    Returns
    -------
    list of dict
        ``what``, ``now``, ``advised``, in FLOP and bytes.
    """
    rows = {
        "FLOP a step, all units on": lambda s: flops(s),
        "FLOP a step, 5 % on": lambda s: flops(s, share_on=0.05),
        "bytes of memory": lambda s: float(sum(memory(s).values())),
    }
    return [{"what": what, "now": f(settings), "advised": f(advised)} for what, f in rows.items()]


def mean_step(models: Sequence[Parameters], run: Run) -> list[float]:
    """Seconds a step of each model over a training, dense at first and as sparse as they are."""
    text, settings = next_batch(run, run.steps[-1]), run.settings.train
    new = step_seconds([init_params(p.config) for p in models], text, settings)
    trained = step_seconds(models, text, settings)
    dense = min(DENSE_STEPS, settings.steps) / settings.steps
    return [dense * n + (1 - dense) * t for n, t in zip(new, trained, strict=True)]


def uniform_of_equal_time(
    run: Run, params: Parameters, of_layers: Scores, widths: Sequence[int]
) -> int:
    """Find the one width for all layers at which a step takes as long as with these widths.

    All models are the trained one, pruned, so that they are about as sparse as they would be.
    Times at three uniform widths are joined by straight lines.

    Returns
    -------
    int
    """
    F, mean = min(run.config.mlp_widths), sum(widths) / len(widths)
    tried = sorted({max(1, min(F, round(part * mean))) for part in (0.5, 1.0, 1.6)})
    shapes = [list(widths), *([w] * len(widths) for w in tried)]
    models = [smaller(params, keep_widths(of_layers, shape)) for shape in shapes]
    wanted, *times = mean_step(models, run)
    return max(1, round(float(np.interp(wanted, np.maximum.accumulate(times), tried))))


def capacity_arms(run: Run, widths: Sequence[int], same_time: int, seeds: int) -> dict[str, Arm]:
    """Trainings from new weights that put the advice to the test.

    Their seeds are those after the run's own, on which the advice was made.

    Parameters
    ----------
    run : Run
    widths : sequence of int
        advised.
    same_time : int
        see :func:`uniform_of_equal_time`.
    seeds : int
    """
    if seeds < 1:
        raise UserError(f"seeds: {seeds} is not allowed; it must be 1 or more")
    L = run.config.n_layers
    shapes = {
        "as before": (run.config.mlp_widths, "the widths of the run"),
        "advised": (widths, "the widths advised"),
        "same parameters": (
            [round(sum(widths) / L)] * L,
            "one width, as many parameters as advised",
        ),
        "same time": ([same_time] * L, "one width, a step takes as long as with those advised"),
    }
    arms = {}
    for name, (shape, what) in shapes.items():
        settings = with_widths(run.settings, shape)
        of_seeds = [
            dataclasses.replace(
                settings, train=dataclasses.replace(settings.train, seed=settings.train.seed + i)
            )
            for i in range(1, seeds + 1)
        ]
        arms[name] = arm(name, what, of_seeds)
    return arms
