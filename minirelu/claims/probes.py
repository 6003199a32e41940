"""Numbers that the probes of one run give: at the end of the training, and over its course."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from minirelu.errors import UserError, command, program, shown
from minirelu.runs.run import Run, measured, probes_of

EARLY = 64  # steps in which the transient of figure 2 has its turning point,
BACK_BY = 256  # and by which it is over


class Reading(NamedTuple):
    """What one seed says: the number that a claim is about, and what it would be by its null."""

    value: float
    null: float = math.nan


class Missing(UserError):
    """Runs cannot answer a claim; which ones could, and the command that makes them."""


class Course(NamedTuple):
    """A measure over a training: ``steps`` (P,), from 0 on, and ``values`` (P, L)."""

    steps: np.ndarray
    values: np.ndarray

    @property
    def start(self) -> np.ndarray:
        """With the initial weights, (L,)."""
        return self.values[0]

    @property
    def end(self) -> np.ndarray:
        """At the last step, (L,)."""
        return self.values[-1]


def course(run: Run, measure: str, layers: int = 1) -> Course:
    """Read a measure of all probes.

    Parameters
    ----------
    run : Run
    measure : str
        of :data:`minirelu.sparsity.measures.MEASURES`, one that probes record.
    layers : int
        how many the claim needs.

    Raises
    ------
    Missing
        fewer layers, no probe at step 0, or probes without this measure.
    """
    L, probes = run.config.n_layers, probes_of(run)
    if layers > L:
        raise Missing(
            f"it needs {layers} layers or more, and {shown(run.folder)} has {L}: "
            f"{program()} train --n-layers {max(layers, 6)}"
        )
    if probes[0]["step"] != 0:
        raise Missing(
            f"it needs a probe at step 0, and those of {shown(run.folder)} begin at step "
            f"{probes[0]['step']}; train from new weights: "
            f"{command('train --config', run.folder / 'config.toml')} --out NEW"
        )
    if any(measure not in probe for probe in probes):
        raise Missing(
            f"it needs probes with {measure}, which those of {shown(run.folder)} lack; train it "
            f"anew: {command('train --config', run.folder / 'config.toml')} --out NEW"
        )
    rows = [[math.nan if v is None else v for v in measured(p, measure, L)] for p in probes]
    return Course(np.array([p["step"] for p in probes]), np.array(rows, np.float64))


def too_short(run: Run, reach: int = 0) -> str:
    """Why a training is too short to ask, or nothing.

    A model whose loss is not below the unigram baseline has not learned more than how frequent
    tokens are; what its units do is not yet what a trained model's do.
    """
    last, unigram = probes_of(run)[-1], run.corpus["baselines"]["unigram"]
    if last["step"] < reach:
        return f"training too short: {run.name} has made {last['step']} steps, not {reach}"
    if not last["val_loss"] < unigram:
        return (
            f"training too short: the loss of {run.name}, {last['val_loss']:.2f}, is not below "
            f"what token frequencies give, {unigram:.2f}"
        )
    return ""


def range_of_layers(run: Run) -> Reading:
    """Use per batch: the layer with most less the one with least, at the end; null: at step 0."""
    of = course(run, "per_batch", layers=2)
    return Reading(float(np.ptp(of.end)), float(np.ptp(of.start)))


def first_layer(run: Run) -> Reading:
    """Use per batch of layer 0 at the end; null: at step 0."""
    of = course(run, "per_batch", layers=2)  # with one, first and last are the same
    return Reading(float(of.end[0]), float(of.start[0]))


def last_layer(run: Run) -> Reading:
    """Use per batch of the last layer at the end; null: the mean of the others.

    Where every layer uses nearly all of its units, that says nothing of the last one.
    """
    of = course(run, "per_batch", layers=2)
    return Reading(float(of.end[-1]), float(of.end[:-1].mean()))


def last_minus_first(measure: str) -> Callable[[Run], Reading]:
    """How much more of its units the last layer uses than the first; null: at step 0."""

    def read(run: Run) -> Reading:
        of = course(run, measure, layers=2)
        return Reading(float(of.end[-1] - of.end[0]), float(of.start[-1] - of.start[0]))

    return read


def last_minus_middle(run: Run) -> Reading:
    """How much more of its units the last layer uses per batch than those between; null: step 0."""
    of = course(run, "per_batch", layers=3)
    last, middle = of.values[:, -1], of.values[:, 1:-1].mean(axis=1)
    return Reading(float(last[-1] - middle[-1]), float(last[0] - middle[0]))


def what_is_left(run: Run) -> Reading:
    """Use per token at the end over that at step 0, of the layers' mean; null: 1, no change."""
    of = course(run, "per_token")
    return Reading(float(of.end.mean() / of.start.mean()), 1.0)


def largest_fall(run: Run) -> Reading:
    """Largest fall between two probes in a row, over the whole fall; null: were all alike.

    Probes are at most a doubling of the steps apart, so that this asks for a sudden fall on either
    scale of time. NaN where use per token did not fall.
    """
    of = course(run, "per_token")
    mean = of.values.mean(axis=1)
    whole = float(mean[0] - mean[-1])
    if len(mean) < 2 or whole <= 0:
        return Reading(math.nan)
    return Reading(float((mean[:-1] - mean[1:]).max()) / whole, 1 / (len(mean) - 1))


def dip_and_back(steps: np.ndarray, values: np.ndarray) -> float:
    """Depth of an early dip: the lesser of how far down it goes, and how far back.

    Its lowest point is at a probe in the first 64 steps; back: the highest from there to step 256.

    >>> dip_and_back(np.array([0, 32, 128, 512]), np.array([0.9, 0.5, 0.7, 0.1])).__round__(2)
    0.2
    """
    early = np.flatnonzero((steps > 0) & (steps <= EARLY))
    if not len(early):
        raise Missing(f"it needs probes in the first {EARLY} steps: {program()} train")
    lowest = early[np.argmin(values[early])]
    after = values[lowest:][steps[lowest:] <= BACK_BY]
    return float(min(values[0] - values[lowest], after.max() - values[lowest]))


def dip_per_sequence(run: Run) -> Reading:
    """How far use per sequence dips early, and comes back, of the layers' mean; null: no dip."""
    of = course(run, "per_sequence")
    return Reading(dip_and_back(of.steps, of.values.mean(axis=1)), 0.0)


def peak_of_median(run: Run) -> Reading:
    """How far the median used unit's share of positions rises early, and falls back; null: 0."""
    of = course(run, "median_in_sequence_used")
    return Reading(dip_and_back(of.steps, -of.values.mean(axis=1)), 0.0)


def late_shift_of_first(run: Run) -> Reading:
    """Layer 0's change in use per sequence over the second half; null: that of the others."""
    of = course(run, "per_sequence", layers=2)
    half = np.flatnonzero(of.steps <= of.steps[-1] / 2)[-1]
    change = of.end - of.values[half]
    return Reading(float(change[0]), float(change[1:].mean()))
