"""On which clock do trainings at different learning rates kill their units alike?

Steady drift moves weights by as much as the sum of learning rates, a random walk by the root of the
sum of their squares. So curves of deaths should fall onto one another when drawn against sum(lr) if
units drift to death, against sum(lr**2) if they diffuse there, and against neither if they die
of accidents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from minirelu.errors import UserError


def clock(lr: np.ndarray, steps: np.ndarray, power: float = 1.0) -> np.ndarray:
    """Return what a clock shows that advances by ``lr**power`` at each update.

    Parameters
    ----------
    lr : ndarray, (T,)
        element t is the rate of the update that leads from step t to step t + 1.
    steps : int ndarray, (P,)
        at which to read the clock; T at most.
    power : float
        0 counts steps, 1 is the clock of drift, 2 that of diffusion.

    Returns
    -------
    float64 ndarray, (P,)

    Raises
    ------
    UserError
        the rates end before the steps do.

    Examples
    --------
    >>> clock(np.array([0.5, 1.0, 1.0]), np.array([0, 1, 3]), 2)
    array([0.  , 0.25, 2.25])
    """
    steps = np.asarray(steps)
    if len(lr) < steps.max():
        raise UserError(f"learning rates of {len(lr)} steps end before step {steps.max()}")
    ticks = np.asarray(lr, np.float64) ** power if power else np.ones(len(lr))
    return np.r_[0.0, np.cumsum(ticks)][steps]


class Collapse(NamedTuple):
    """How far curves lie apart on a clock.

    ``spread`` : the mean squared distance between curves at the same time of the clock, relative to
    all the variance in them: 0 where they are one curve, 1 where the clock explains nothing.
    ``end`` : where the first curve ends on this clock, as far as they are compared.
    """

    spread: float
    end: float


def collapse(
    clocks: Sequence[np.ndarray], curves: Sequence[np.ndarray], points: int = 200
) -> Collapse:
    """Measure how well curves fall onto one another.

    Parameters
    ----------
    clocks : two or more arrays, (P_i,)
        what the clock shows at each record, rising.
    curves : as many arrays, (P_i,)
        such as the share of units that are dead.
    points : int
        evenly spaced over the range that all share, at which the curves are compared.

    Returns
    -------
    Collapse

    Raises
    ------
    UserError
        fewer than two curves, no range in common, or no deaths within it.

    Examples
    --------
    >>> t = np.arange(11.0)
    >>> collapse([t, 2 * t], [t, 2 * t]), round(collapse([t, t], [t, 2 * t]).spread, 2)
    (Collapse(spread=0.0, end=10.0), 0.31)
    """
    if len(clocks) < 2 or len(clocks) != len(curves):
        raise UserError(
            f"{len(curves)} curves with {len(clocks)} clocks: two or more trainings are needed, "
            "each with its own"
        )
    start, end = max(float(c[0]) for c in clocks), min(float(c[-1]) for c in clocks)
    if not start < end:
        raise UserError("the trainings share no range of this clock; train the slower one longer")
    at = np.linspace(start, end, points)
    values = np.array([np.interp(at, c, y) for c, y in zip(clocks, curves, strict=True)])
    total = values.var()
    if not total:
        raise UserError(
            f"no unit died before {end:.4g} on this clock, where the first curve ends: there is "
            "nothing to compare"
        )
    return Collapse(float(values.var(axis=0).mean() / total), end)


class BestClock(NamedTuple):
    """The power of the learning rate whose clock makes curves agree best, and their spread."""

    power: float
    spread: float


def best_clock(
    lrs: Sequence[np.ndarray],
    steps: Sequence[np.ndarray],
    curves: Sequence[np.ndarray],
    powers: np.ndarray | None = None,
) -> BestClock:
    """Find the clock on which death curves collapse best: about 1 for drift, 2 for diffusion.

    Parameters
    ----------
    lrs, steps : of each training, as for :func:`clock`
    curves : as for :func:`collapse`
    powers : ndarray, optional
        to try; 0 to 3 by twentieths.

    Returns
    -------
    BestClock

    Examples
    --------
    >>> steps = np.arange(0, 401, 20)
    >>> lrs = [np.full(400, 0.001), np.full(400, 0.002)]
    >>> curves = [1 - np.exp(-3 * clock(lr, steps)) for lr in lrs]
    >>> best = best_clock(lrs, [steps, steps], curves)
    >>> round(best.power, 2), best.spread < 1e-3
    (1.0, True)
    """
    powers = np.linspace(0, 3, 61) if powers is None else powers
    spreads = []
    for power in powers:
        clocks = [clock(lr, s, power) for lr, s in zip(lrs, steps, strict=True)]
        spreads.append(collapse(clocks, curves).spread)
    best = int(np.argmin(spreads))
    return BestClock(float(powers[best]), spreads[best])
