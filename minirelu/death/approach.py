"""How units come to their death: as a random walk does, by steady drift, or in one jump.

The margin of a unit is its largest pre-activation over the probe: it is on while that is above 0.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from minirelu.death.life_histories import life_histories
from minirelu.errors import UserError
from minirelu.intervals import Estimate


def aligned(margin: np.ndarray, death: np.ndarray, before: int = 20) -> np.ndarray:
    """Cut out the margins of dying units from some records before death to the first silent one.

    Parameters
    ----------
    margin : ndarray, (P, F)
    death : int ndarray, (F,)
        index of the record at which each unit was first silent, -1 for none; as
        ``LifeHistories.first.high``.
    before : int
        records.

    Returns
    -------
    float64 ndarray, (n, before + 1)
        for each unit that died ``before`` records or more after the first one, with the margin
        above 0 at the last record before.

    Examples
    --------
    >>> margin = np.array([[3, 1, 5], [2, -1, 5], [1, -1, 4], [-2, -1, 3]])
    >>> aligned(margin, np.array([3, 1, -1]), before=2)
    array([[ 2.,  1., -2.]])
    """
    unit = np.flatnonzero(death >= before)
    paths = margin[death[unit] + np.arange(-before, 1)[:, None], unit].T.astype(np.float64)
    return paths[(paths[:, -2] > 0) & (paths[:, -1] <= 0)]


class Approach(NamedTuple):
    """The last ``before`` records of n units, aligned at death.

    ``mean``, ``spread`` : of the margin, (before + 1,), the last at the first silent record.
    ``exponent`` : a in ``(margin - margin at death)**2 ~ (records before death)**a``, over the mean
    of units: about 1 for a random walk, 2 for steady drift. ``jump`` : share of the descent, from
    the highest margin to that at death, that its largest single step makes; the mean of units.
    ``jumped`` : share of units in which that is more than half.
    """

    n: int
    mean: np.ndarray
    spread: np.ndarray
    exponent: Estimate
    jump: Estimate
    jumped: Estimate


def approach(
    paths: np.ndarray, groups: np.ndarray | None = None, resamples: int = 400, seed: int = 0
) -> Approach:
    """Measure how margins fall before death.

    Parameters
    ----------
    paths : ndarray, (n, before + 1)
        see :func:`aligned`.
    groups : ndarray, (n,), optional
        such as the seed of each unit's training. 95 % limits come from drawing whole groups anew
        (infinite for one group); without, from drawing units.
    resamples, seed : int
        of that bootstrap.

    Returns
    -------
    Approach

    Raises
    ------
    UserError
        fewer than 10 units, or fewer than 4 records before death.

    Examples
    --------
    >>> fall = np.linspace(1, -0.01, 21) * np.arange(1, 13)[:, None]  # 12 units
    >>> a = approach(fall)
    >>> round(a.exponent.value, 3), round(a.jump.value, 3)
    (2.0, 0.05)
    """
    n, before = len(paths), paths.shape[1] - 1
    if n < 10 or before < 4:
        raise UserError(
            f"{n} deaths with {before} records before them are too few to see how units approach "
            "death: 10 deaths and 4 records are needed; record the history more often, or train "
            "longer"
        )
    squares = (paths[:, before - 1 :: -1] - paths[:, -1:]) ** 2  # at 1, 2, ..., before
    share = _largest_step(paths)
    each = np.column_stack([squares, share, share > 0.5, np.ones(n)])
    group = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    sums = np.zeros((group.max() + 1, each.shape[1]))
    np.add.at(sums, group, each)
    G = len(sums)
    weights = np.random.default_rng(seed).multinomial(G, np.full(G, 1 / G), resamples)
    resampled = _numbers(weights @ sums)
    estimates = []
    for value, others in zip(_numbers(sums.sum(axis=0)[None])[0], resampled.T, strict=True):
        limits = np.quantile(others, (0.025, 0.975)) if G > 1 else (-math.inf, math.inf)
        estimates.append(Estimate(float(value), *(float(x) for x in limits)))
    return Approach(n, paths.mean(axis=0), paths.std(axis=0), *estimates)


def _largest_step(paths: np.ndarray) -> np.ndarray:
    """Share of each descent, from its highest point on, that the largest step makes; (n,)."""
    peak = paths.argmax(axis=1)
    drops = paths[:, :-1] - paths[:, 1:]
    drops[np.arange(drops.shape[1]) < peak[:, None]] = 0
    descent = paths.max(axis=1) - paths[:, -1]
    return np.minimum(drops.max(axis=1) / descent, 1.0)  # one that falls, rises and falls: above 1


def _numbers(sums: np.ndarray) -> np.ndarray:
    """Exponent, mean share and share above half, (R, 3), from sums over units, (R, before + 3)."""
    *squares, share, above, n = sums.T
    log_tau = np.log(np.arange(1, len(squares) + 1))
    weight = np.exp(-log_tau)  # each octave counts the same
    weight /= weight.sum()
    x = log_tau - weight @ log_tau
    exponent = (weight * x) @ np.log(squares) / ((weight * x) @ x)
    return np.column_stack([exponent, share / n, above / n])


class WalkNull(NamedTuple):
    """What the same steps do in random directions; mean, and the range of 95 % of repeats.

    ``deaths`` : units that die. ``exponent``, ``jump``, ``jumped`` : as in :class:`Approach`, of
    those that die late enough; NaN where fewer than 10 do, as then no random walk explains deaths.
    """

    deaths: Estimate
    exponent: Estimate
    jump: Estimate
    jumped: Estimate


def walk_null(
    margin: np.ndarray, before: int = 20, successive: int = 3, repeats: int = 50, seed: int = 0
) -> WalkNull:
    """Let every margin walk at random by its own steps, and see who dies, and how.

    Each unit starts at its own margin, and moves at each record by as much as it did, up or down by
    the toss of a coin. Walks that fall to 0 and stay for ``successive`` records die, and are
    aligned at that first passage, as the real ones are: being chosen for dying, even random walks
    fall before it.

    Parameters
    ----------
    margin : ndarray, (P, F)
        of all units of a layer, dying or not.
    before, successive : int
        as for :func:`aligned` and ``life_histories``.
    repeats, seed : int
        of the simulation.

    Returns
    -------
    WalkNull

    Examples
    --------
    >>> steps = np.random.default_rng(0).normal(-0.2, 1, (100, 500))  # walks that drift
    >>> margin = 10 + steps.cumsum(axis=0)
    >>> null = walk_null(margin, repeats=10)
    >>> alive = margin > 0
    >>> died = life_histories(np.arange(100), alive, alive, 1).died.sum()
    >>> bool(died > 1.5 * null.deaths.high), null.exponent.value < 1.3
    (True, True)
    """
    rng, P = np.random.default_rng(seed), len(margin)
    size = np.abs(np.diff(margin, axis=0)).astype(np.float32)
    found = np.full((repeats, 4), np.nan)
    for row in found:
        walk = np.empty(margin.shape, np.float32)
        walk[0] = margin[0]
        np.multiply(size, rng.integers(0, 2, size.shape, np.int8) * 2 - 1, out=walk[1:])
        np.cumsum(walk, axis=0, out=walk)
        on = walk > 0
        lives = life_histories(np.arange(P), on, on, 0, successive)
        paths = aligned(walk, lives.first.high, before)
        row[0] = lives.died.sum()
        if len(paths) >= 10:
            a = approach(paths, resamples=1)
            row[1:] = a.exponent.value, a.jump.value, a.jumped.value
    missing = np.isnan(found).any(axis=0)
    low, high = np.nanquantile(np.where(missing, 0, found), (0.025, 0.975), axis=0)
    return WalkNull(
        *(
            Estimate(math.nan, math.nan, math.nan)
            if none
            else Estimate(float(m), float(a), float(b))
            for none, m, a, b in zip(missing, found.mean(axis=0), low, high, strict=True)
        )
    )
