"""How many hidden units each layer needs, what fewer would save, and whether the advice is good."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minirelu.config import Config
from minirelu.estimate import flops, memory
from minirelu.model.parameters import Parameters, init_params, n_params
from minirelu.pruning.choice import Choice
from minirelu.pruning.curves import quality
from minirelu.pruning.needs import units_needed
from minirelu.pruning.rankings import Evidence, Scores, keep_widths, scores
from minirelu.pruning.smaller import smaller
from minirelu.pruning.speed import step_seconds
from minirelu.pruning.texts import next_batch
from minirelu.pruning.trial import DENSE_STEPS, Arm, arm
from minirelu.runs.files import read_json, write_text
from minirelu.runs.run import Run
from minirelu.sparsity.measure import measure
from minirelu.sparsity.rarefaction import chao1

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
    """What a training needs now and as advised: parameters, arithmetic of a step, memory.

    Returns
    -------
    list of dict
        ``what``, ``now``, ``advised``.
    """
    both = (settings, advised)
    rows: dict[str, list[float]] = {
        "parameters": [n_params(s.model) for s in both],
        "GFLOP a step, all units on": [flops(s) / 1e9 for s in both],
        "GFLOP a step, 5 % on": [flops(s, share_on=0.05) / 1e9 for s in both],
        "MB of memory to train": [sum(memory(s).values()) / 1e6 for s in both],
    }
    return [{"what": what, "now": a, "advised": b} for what, (a, b) in rows.items()]


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


def advice(choice: Choice, run: Run, found: Evidence) -> tuple[int, ...]:
    """Widths of the next run: what each layer keeps, rounded up."""
    needed = [int(k.sum()) for k in choice.keep(run, found)]
    return advised_widths(needed, run.config.mlp_widths)


def shapes_to_try(
    run: Run, within: float, by: str, tokens: int, file: Path
) -> dict[str, list[int]]:
    """Widths of the layers in each arm of a trial; measured once, and kept in a file.

    Returns
    -------
    dict of list of int
        ``as before``, ``advised``, ``same parameters``, ``same time``.
    """
    if file.is_file():
        return read_json(file)
    choice = Choice(by, "global", tokens, within=within)
    found = choice.evidence(run, run.steps[-1])
    ranked, widths = scores(found, by), advice(choice, run, found)
    L = run.config.n_layers
    shapes = {
        "as before": list(run.config.mlp_widths),
        "advised": list(widths),
        "same parameters": [round(sum(widths) / L)] * L,
        "same time": [uniform_of_equal_time(run, run.params(), ranked, widths)] * L,
    }
    write_text(file, json.dumps(shapes, indent=1))
    return shapes


ARMS = {
    "as before": "the widths of the run",
    "advised": "the widths advised",
    "same parameters": "one width, as many parameters as advised",
    "same time": "one width, a step takes as long as with those advised",
}


def capacity_arms(run: Run, shapes: Mapping[str, Sequence[int]], seeds: int) -> dict[str, Arm]:
    """Trainings from new weights that put the advice to the test.

    Their seeds are those after the run's own, on which the advice was made.

    Parameters
    ----------
    run : Run
    shapes : mapping
        widths of the layers in each arm.
    seeds : int
    """
    arms = {}
    for name, shape in shapes.items():
        settings = with_widths(run.settings, shape)
        of_seeds = [
            dataclasses.replace(
                settings, train=dataclasses.replace(settings.train, seed=settings.train.seed + i)
            )
            for i in range(1, seeds + 1)
        ]
        arms[name] = arm(name, ARMS[name], of_seeds)
    return arms


def capacity_of(
    run: Run,
    within: float,
    by: str,
    tokens: int,
    on_look: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Measure what each layer uses and needs, and derive the widths of the next run.

    Parameters
    ----------
    run : Run
    within : float
        rise in held-out loss that the advice allows, as a share of it.
    by : str
        criterion by which units go.
    tokens : int
        of the text that units are ranked on, and of the held-out text.
    on_look : callable
        called after each pruned model that was measured.

    Returns
    -------
    dict
        ``layers``, each with ``d_mlp``, ``used`` (units on at least once on the held-out text),
        ``chao1`` (estimate of how many would be on a text without end), ``needed`` at each of the
        ``limits`` (that layer alone), and ``advised``; ``loss`` and ``advised_loss`` (the run
        pruned to these widths); ``savings``; and ``toml``, the settings of a run with them.
    """
    choice = Choice(by, "global", tokens, within=within)
    found = choice.evidence(run, run.steps[-1])
    params, of_layers, advised = found.params, scores(found, by), advice(choice, run, found)
    compute, text = run.settings.train.compute, run.held_out(tokens)
    counts, _ = measure(params, text, run.config, compute)
    seen = chao1(counts)
    base = quality(params, text, run.config, compute).loss
    layers = []
    for l, F in enumerate(run.config.mlp_widths):
        needed = [
            units_needed(params, of_layers, text, l, base, limit, compute, on_look)[l]
            for limit in LIMITS
        ]
        layers.append(
            {
                "layer": l, "d_mlp": F, "used": int(seen.seen[l]), "chao1": float(seen.estimate[l]),
                "needed": needed, "advised": advised[l],
            }
        )  # fmt: skip
    left = smaller(params, keep_widths(of_layers, advised))
    settings = with_widths(run.settings, advised)
    now, then = mean_step([params, left], run)
    return {
        "step": run.steps[-1],
        "by": by,
        "within": within,
        "tokens": text[:, 1:].size,
        "limits": list(LIMITS),
        "loss": base,
        "advised_loss": quality(left, text, left.config, compute).loss,
        "layers": layers,
        "savings": [
            *savings(run.settings, settings),
            {"what": "ms a training step, mean", "now": 1000 * now, "advised": 1000 * then},
        ],
        "toml": settings.to_toml(),
    }
