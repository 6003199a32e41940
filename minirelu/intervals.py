"""Confidence intervals of shares, counts and means, and what silence on a text can promise.

Those of shares and counts take units as independent, which they are not: they say how well one run
fixes a number, not how far another seed would move it. That takes :func:`over_seeds`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from minirelu.errors import UserError


class Estimate(NamedTuple):
    """A number between its confidence limits; NaN where there is nothing to estimate from."""

    value: float
    low: float
    high: float


def silence_bound(n_sequences: ArrayLike, confidence: float = 0.95) -> np.ndarray:
    """Return the largest share of sequences in which a unit silent on a text may still be on.

    Were it on in a share r of all sequences, S independent ones would all miss it with probability
    ``(1 - r)**S``; the bound is the r that makes this ``1 - confidence``. Tokens of one sequence
    are far from independent, so sequences are what is counted.

    Parameters
    ----------
    n_sequences : int, or array of int
        S, 0 or more.
    confidence : float

    Returns
    -------
    float64 ndarray, of the same shape

    Examples
    --------
    >>> silence_bound([0, 1, 64, 1024]).round(4)
    array([1.    , 0.95  , 0.0457, 0.0029])
    """
    S = np.asarray(n_sequences, np.float64)
    return np.where(S > 0, 1 - (1 - confidence) ** (1 / np.maximum(S, 1)), 1.0)


def share_interval(
    k: ArrayLike, n: ArrayLike, confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Exact confidence limits of a probability that came true k times in n (Clopper-Pearson 1934).

    Parameters
    ----------
    k, n : int, or arrays of int
        the limits are 0 and 1 where n is 0.
    confidence : float

    Returns
    -------
    low, high : float64 ndarray

    Examples
    --------
    >>> [x.round(3) for x in share_interval([0, 5, 10], 10)]
    [array([0.   , 0.187, 0.692]), array([0.308, 0.813, 1.   ])]
    """
    from scipy.special import betaincinv  # slow to load

    k, n = np.broadcast_arrays(np.asarray(k, np.float64), np.asarray(n, np.float64))
    tail = (1 - confidence) / 2
    low = np.where(k > 0, betaincinv(np.maximum(k, 1), n - k + 1, tail), 0.0)
    high = np.where(k < n, betaincinv(k + 1, np.maximum(n - k, 1), 1 - tail), 1.0)
    return low, high


def count_interval(k: float, confidence: float = 0.95) -> tuple[float, float]:
    """Exact confidence limits of a Poisson mean, of which k were seen (Garwood 1936).

    Examples
    --------
    >>> [round(x, 2) for x in count_interval(0)], [round(x, 2) for x in count_interval(10)]
    ([0.0, 3.69], [4.8, 18.39])
    """
    from scipy.special import gammaincinv

    tail = (1 - confidence) / 2
    return float(gammaincinv(k, tail)) if k else 0.0, float(gammaincinv(k + 1, 1 - tail))


def over_seeds(values: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Return the mean over seeds with Student's interval, the one to hold against a claim.

    Parameters
    ----------
    values : array, (n,)
        one number for each seed; those that are NaN are left out.
    confidence : float

    Returns
    -------
    Estimate
        with infinite limits for a single seed, which says nothing on its spread.

    Raises
    ------
    UserError
        no number at all.

    Examples
    --------
    >>> Estimate(*(round(x, 2) for x in over_seeds([1.0, 2.0, 3.0])))
    Estimate(value=2.0, low=-0.48, high=4.48)
    """
    from scipy.special import stdtrit

    x = np.asarray(values, np.float64)
    x = x[~np.isnan(x)]
    if not len(x):
        raise UserError("no seed gave a number to take the mean of")
    mean = float(x.mean())
    if len(x) == 1:
        return Estimate(mean, -math.inf, math.inf)
    half = float(stdtrit(len(x) - 1, (1 + confidence) / 2) * x.std(ddof=1) / math.sqrt(len(x)))
    return Estimate(mean, mean - half, mean + half)
