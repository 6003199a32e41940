"""Do units die one by one, or many at once? Bursts of deaths, and what they coincide with."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minirelu.errors import UserError
from minirelu.intervals import Estimate


class Bursts(NamedTuple):
    """How much more the deaths of K intervals scatter than a smooth hazard explains.

    ``fano`` : the sum of (deaths - expected)**2 over that of expected. ``null`` : its mean, and the
    range of 95 % of its values, where each unit dies by itself; ``p`` : the share of those that are
    as large. ``expected`` : deaths, (K,); ``excess`` : deaths above these in standard deviations
    (of a count of 1 where fewer were expected), (K,). ``worst`` : the interval with most deaths
    above expectation. ``bandwidth`` : as given.
    """

    fano: float
    null: Estimate
    p: float
    expected: np.ndarray
    excess: np.ndarray
    worst: int
    bandwidth: float


def bursts(
    deaths: np.ndarray,
    at_risk: np.ndarray,
    bandwidth: float = 5.0,
    simulations: int = 2000,
    seed: int = 0,
) -> Bursts:
    """Compare deaths per interval with those under a hazard that changes smoothly.

    The hazard is smoothed over neighbouring intervals by fitting lines with Gaussian weights (so
    that a slope does no harm at the ends). Smoothing takes part of the scatter away; the null is
    therefore simulated, and smoothed, in the same way: in each interval, units at risk die
    independently with the smooth hazard. What changes faster than the bandwidth, such as a hazard
    that jumps where a setting does, is a burst too.

    Parameters
    ----------
    deaths, at_risk : int ndarray, (K,)
        in each of K intervals of equal length, as in ``transitions.Rates``.
    bandwidth : float
        standard deviation of the Gaussian, in intervals.
    simulations, seed : int
        of the null.

    Returns
    -------
    Bursts

    Raises
    ------
    UserError
        no deaths, or fewer than 4 bandwidths of intervals.

    Examples
    --------
    >>> rng, at_risk = np.random.default_rng(0), np.full(60, 1000)
    >>> deaths = rng.binomial(at_risk, 0.01)
    >>> bursts(deaths, at_risk).p > 0.05
    True
    >>> deaths[33] += 40
    >>> b = bursts(deaths, at_risk)
    >>> b.p < 0.01, b.worst
    (True, 33)
    """
    deaths, at_risk = np.asarray(deaths), np.asarray(at_risk)
    K = len(deaths)
    if not bandwidth > 0:
        raise UserError(f"bandwidth: {bandwidth!r} is not allowed; it must be above 0")
    if 4 * bandwidth > K:
        raise UserError(
            f"{K} intervals between records are too few to tell bursts from a hazard that is smooth"
            f" over {bandwidth:g} of them; {int(np.ceil(4 * bandwidth))} or more are needed"
        )
    if not deaths.any():
        raise UserError("no unit died: there are no bursts of deaths to look for")
    distance = np.arange(K) - np.arange(K)[:, None]
    kernel = np.exp(-0.5 * (distance / bandwidth) ** 2)
    s0, s1, s2 = ((kernel * distance**m) @ at_risk for m in range(3))
    determinant = np.maximum(s0 * s2 - s1**2, 1e-9)
    line = kernel * (s2[:, None] - s1[:, None] * distance) / determinant[:, None]

    def expectation(counts: np.ndarray) -> np.ndarray:  # (..., K) -> (..., K)
        return np.clip(counts @ line.T, 0, 1) * at_risk

    def fano(counts: np.ndarray, expected: np.ndarray) -> np.ndarray:
        return ((counts - expected) ** 2).sum(axis=-1) / np.maximum(expected.sum(axis=-1), 1e-300)

    expected = expectation(deaths)
    hazard = expected / np.maximum(at_risk, 1)
    drawn = np.random.default_rng(seed).binomial(at_risk, hazard, (simulations, K))
    null = fano(drawn, expectation(drawn))
    found = float(fano(deaths, expected))
    excess = (deaths - expected) / np.sqrt(np.maximum(expected, 1.0))
    return Bursts(
        fano=found,
        null=Estimate(float(null.mean()), *(float(q) for q in np.quantile(null, (0.025, 0.975)))),
        p=float((1 + (null >= found).sum()) / (1 + simulations)),
        expected=expected,
        excess=excess,
        worst=int((deaths - expected).argmax()),
        bandwidth=bandwidth,
    )


def spikes(values: np.ndarray, window: int = 101) -> np.ndarray:
    """Return how far each value sticks out above those around it, in robust standard deviations.

    Parameters
    ----------
    values : ndarray, (T,)
        of every step, such as the norm of its update, or its loss.
    window : int
        steps, of which the running median and the median of the distances from it are taken.

    Returns
    -------
    float64 ndarray, (T,)

    Examples
    --------
    >>> values = np.tile([1.0, 1.2, 0.8], 20)
    >>> values[30] = 5
    >>> s = spikes(values, window=15)
    >>> int(s.argmax()), round(float(s.max()), 1)
    (30, 13.5)
    """
    from scipy.ndimage import median_filter  # slow to load

    values = np.asarray(values, np.float64)
    above = values - median_filter(values, window, mode="reflect")
    spread = 1.4826 * median_filter(np.abs(above), window, mode="reflect")
    return above / np.where(spread > 0, spread, np.inf)


def largest_in_intervals(values: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return the largest value in each interval between records.

    Parameters
    ----------
    values : ndarray, (T,)
        element t belongs to the update that leads from step t to step t + 1.
    steps : int ndarray, (P,)
        of the records, rising.

    Returns
    -------
    ndarray, (P - 1,)

    Raises
    ------
    UserError
        the values end before the records do.

    Examples
    --------
    >>> largest_in_intervals(np.array([1, 5, 2, 0, 3, 9]), np.array([0, 2, 5]))
    array([5, 3])
    """
    if len(values) < steps[-1]:
        raise UserError(f"values of {len(values)} steps end before the last record, {steps[-1]}")
    return np.maximum.reduceat(values[: steps[-1]], steps[:-1])


class Correlation(NamedTuple):
    """Of deaths with a signal; ``lag`` : intervals by which deaths follow. ``p`` : of one side."""

    r: float
    lag: int
    p: float


def correlation_with(excess: np.ndarray, signal: np.ndarray, lags: int = 1) -> Correlation:
    """Correlate deaths with a signal, against all ways to shift one of them in time.

    The null takes the same series, with all of its peaks and its own memory, and turns it round by
    every number of intervals: if deaths have nothing to do with the signal, the true alignment is
    one among K.

    Parameters
    ----------
    excess : ndarray, (K,)
        of deaths, without their trend, as in :class:`Bursts`.
    signal : ndarray, (K,)
        of each interval, without a trend, as :func:`largest_in_intervals` of :func:`spikes`.
    lags : int
        the largest of the correlations at lags 0 to this is taken, in the null as well.

    Returns
    -------
    Correlation
        ``p`` is (lags + 1) / K at best.

    Raises
    ------
    UserError
        fewer than 20 intervals, or one of the two does not change.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> deaths, signal = rng.normal(size=(2, 100))
    >>> correlation_with(deaths, signal).p > 0.05
    True
    >>> signal[40], deaths[41] = 9, 9
    >>> c = correlation_with(deaths, signal)
    >>> c.lag, c.p
    (1, 0.02)
    """
    K = len(excess)
    if K < 20 or len(signal) != K:
        raise UserError(
            f"{K} intervals of deaths beside {len(signal)} of a signal: 20 or more of both are "
            "needed to correlate them"
        )
    if not np.ptp(excess) or not np.ptp(signal):
        raise UserError("deaths or signal never change: there is nothing to correlate")
    x, y = ((v - np.mean(v)) / np.std(v) for v in (excess, signal))
    r = np.array([x @ np.roll(y, shift) / K for shift in range(K)])
    best = np.max([np.roll(r, -lag) for lag in range(lags + 1)], axis=0)  # of each shift
    return Correlation(
        r=float(best[0]), lag=int(r[: lags + 1].argmax()), p=float((best >= best[0]).mean())
    )
