"""Do the same units die in two trainings? Overlap of two sets, and order of their deaths."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from minirelu.errors import UserError
from minirelu.intervals import Estimate


class Overlap(NamedTuple):
    """How far two sets of dead units agree, against sets of the same sizes drawn at random.

    ``n`` : units of the layer; ``a``, ``b`` : in each set; ``both`` : in the two. ``expected`` :
    in both by chance; ``ratio`` : ``both / expected``; ``z`` : standard deviations above it; ``p``
    : exact, of both sides. ``jaccard`` : ``both`` over the units in one or the other, with what
    chance would give. ``strata`` : within how many groups the chance was drawn.
    """

    n: int
    a: int
    b: int
    both: int
    expected: float
    ratio: float
    z: float
    p: float
    jaccard: float
    expected_jaccard: float
    strata: int


def overlap(
    a: np.ndarray, b: np.ndarray, covariate: np.ndarray | None = None, strata: int = 10
) -> Overlap:
    """Compare the dead units of two trainings with the hypergeometric null.

    With a covariate, the null keeps how many units of each of its quantiles are in each set: what
    then still stands above chance, the covariate does not explain. Its mean, variance and
    distribution are those of a sum of one hypergeometric number for each stratum.

    Parameters
    ----------
    a, b : bool ndarray, (F,)
        the units in each set.
    covariate : ndarray, (F,), optional
        of each unit, such as its margin at initialisation.
    strata : int
        groups of equal size into which the covariate's order is cut; units with the same value
        stay together.

    Returns
    -------
    Overlap

    Raises
    ------
    UserError
        sets over other numbers of units; or one that is empty or has every unit, and so overlaps
        with any other just as much as chance.

    Examples
    --------
    >>> a = np.arange(100) < 20
    >>> o = overlap(a, np.roll(a, 10))
    >>> o.both, o.expected, o.ratio, round(o.z, 2), round(o.p, 4), round(o.jaccard, 3)
    (10, 4.0, 2.5, 3.73, 0.0013, 0.333)

    All are among the 40 units with the lowest covariate, of which half would do so by chance:

    >>> o = overlap(a, np.roll(a, 10), covariate=np.arange(100) > 39)
    >>> o.expected, round(o.p, 2)
    (10.0, 1.0)
    """
    from scipy.stats import hypergeom  # slow to load

    a, b = np.asarray(a, bool), np.asarray(b, bool)
    if a.ndim != 1 or a.shape != b.shape:
        raise UserError(
            f"sets over {a.shape} and {b.shape} units cannot be compared; twins have layers of the "
            "same width"
        )
    n, n_a, n_b = len(a), int(a.sum()), int(b.sum())
    for name, size in (("first", n_a), ("second", n_b)):
        if size in (0, n):
            what = "no unit" if not size else "every unit"
            raise UserError(f"{what} is in the {name} set: its overlap with the other says nothing")
    stratum = _strata(n, covariate, strata)
    sizes, of_a, of_b = (
        np.bincount(stratum, weights, stratum.max() + 1).astype(int) for weights in (None, a, b)
    )
    means = of_a * of_b / sizes
    mean = float(means.sum())
    variance = float(
        (means * (sizes - of_a) * (sizes - of_b) / np.maximum(sizes * (sizes - 1), 1)).sum()
    )
    chance = np.ones(1)  # of 0, 1, ... units in both
    for size, k_a, k_b in zip(sizes, of_a, of_b, strict=True):
        one = hypergeom.pmf(np.arange(min(k_a, k_b) + 1), size, k_a, k_b)
        chance = np.convolve(chance, one)
    if not variance:
        raise UserError(
            f"{len(sizes)} strata leave nothing to chance: in each, a set has every unit or none; "
            "use fewer"
        )
    both = int((a & b).sum())
    k = np.arange(len(chance))
    return Overlap(
        n=n,
        a=n_a,
        b=n_b,
        both=both,
        expected=mean,
        ratio=both / mean,
        z=(both - mean) / math.sqrt(variance),
        p=min(1.0, 2 * min(float(chance[both:].sum()), float(chance[: both + 1].sum()))),
        jaccard=both / (n_a + n_b - both),
        expected_jaccard=float(chance @ (k / (n_a + n_b - k))),
        strata=len(sizes),
    )


def _strata(n: int, covariate: np.ndarray | None, strata: int) -> np.ndarray:
    """Return the group that each of n units is in, by its covariate."""
    if covariate is None:
        return np.zeros(n, np.int64)
    covariate = np.asarray(covariate)
    if covariate.shape != (n,):
        raise UserError(f"a covariate of shape {covariate.shape} does not fit {n} units")
    if not 1 <= strata <= n // 2:
        raise UserError(f"strata: {strata!r} is not allowed; it must be from 1 to {n // 2}")
    below = np.searchsorted(np.sort(covariate), covariate)  # units with a smaller value
    return np.unique(below * strata // n, return_inverse=True)[1]


class Order(NamedTuple):
    """Spearman's correlation of the times at which n units died in two trainings."""

    n: int
    rho: Estimate
    p: float


def order_of_deaths(a: np.ndarray, b: np.ndarray, at_least: int = 10) -> Order:
    """Correlate when units died, over those that died in both trainings.

    Parameters
    ----------
    a, b : ndarray, (F,)
        time of each unit's death, as a step or a record; below 0 where it did not die.
    at_least : int
        of units that died in both; 4 or more.

    Returns
    -------
    Order
        limits after Bonett and Wright (2000).

    Raises
    ------
    UserError
        other numbers of units, too few that died in both, or all at one time.

    Examples
    --------
    >>> a = np.array([1, 1, 2, 3, 4, -1, 5, 6])
    >>> order = order_of_deaths(a, np.array([2, 1, 2, 4, 4, 3, 7, -1]), at_least=4)
    >>> order.n, round(order.rho.value, 3), round(order.p, 3)
    (6, 0.94, 0.005)
    """
    from scipy.stats import spearmanr

    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        raise UserError(f"times of {len(a)} and of {len(b)} units cannot be compared")
    in_both = (a >= 0) & (b >= 0)
    n = int(in_both.sum())
    if n < max(at_least, 4):
        raise UserError(
            f"{n} units died in both trainings; to compare the order, {max(at_least, 4)} or more "
            "are needed"
        )
    a, b = a[in_both], b[in_both]
    if (a == a[0]).all() or (b == b[0]).all():
        raise UserError(f"all {n} units died between the same two records: they have no order")
    rho, p = (float(x) for x in spearmanr(a, b))
    half = 1.959964 * math.sqrt((1 + rho**2 / 2) / (n - 3))
    middle = math.atanh(min(max(rho, -1 + 1e-12), 1 - 1e-12))
    return Order(n, Estimate(rho, math.tanh(middle - half), math.tanh(middle + half)), p)
