"""When units die first: survival curves, hazards, and what tells two of them apart.

A death lies between two records, and all units share the records, so that each interval between
them is one row of a life table. Units are the sample: intervals say nothing on other seeds.
"""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import numpy as np

from minirelu.death.life_histories import LifeHistories
from minirelu.errors import UserError
from minirelu.intervals import Estimate, share_interval


class Times(NamedTuple):
    """When units died, or until when they were seen alive.

    ``steps`` : (P,), of the records. ``record`` : (n,) int, for a unit that died, the index of its
    first silent record; for another, of the last at which it was alive. ``died`` : (n,) bool.
    """

    steps: np.ndarray
    record: np.ndarray
    died: np.ndarray


def first_deaths(lives: LifeHistories) -> Times:
    """Take the time of each unit's first death, leaving out those that are silent at record 0.

    Examples
    --------
    >>> from minirelu.death.life_histories import life_histories
    >>> on = np.array([[1, 1, 0], [0, 1, 1], [0, 1, 1]])
    >>> first_deaths(life_histories([0, 10, 20], on, on, n_confirm=64, successive=2))
    Times(steps=array([ 0, 10, 20]), record=array([1, 2]), died=array([ True, False]))
    """
    died = lives.died
    record = np.where(died, lives.first.high, lives.last_alive)
    return Times(lives.steps, record[~lives.born_silent], died[~lives.born_silent])


class LifeTable(NamedTuple):
    """One row for each interval between two records; (P - 1,) each.

    ``start``, ``end`` : steps. ``at_risk`` : units known to be alive at the start, whose state at
    the end is known. ``deaths`` : those that died within. ``hazard`` : the share of these, NaN
    where none is at risk; ``survival`` : the share that outlives the interval's end, with their 95
    % limits.
    """

    start: np.ndarray
    end: np.ndarray
    at_risk: np.ndarray
    deaths: np.ndarray
    hazard: np.ndarray
    hazard_low: np.ndarray
    hazard_high: np.ndarray
    survival: np.ndarray
    survival_low: np.ndarray
    survival_high: np.ndarray


def life_table(times: Times) -> LifeTable:
    """Estimate the discrete hazard, and survival after Kaplan and Meier (1958).

    Limits of the hazard are Clopper and Pearson's, those of survival come from Greenwood's variance
    of ``log(-log S)``.

    Parameters
    ----------
    times : Times

    Returns
    -------
    LifeTable

    Raises
    ------
    UserError
        no units.

    Examples
    --------
    >>> steps, died = np.array([0, 10, 20, 30]), np.array([1, 0, 1, 0, 0], bool)
    >>> table = life_table(Times(steps, np.array([1, 1, 2, 2, 3]), died))
    >>> table.at_risk, table.deaths, table.survival.round(3)
    (array([5, 3, 1]), array([1, 1, 0]), array([0.8  , 0.533, 0.533]))
    """
    from scipy.stats import CensoredData, ecdf  # slow to load

    if not len(times.record):
        raise UserError("no units that were on at the first record: there are no lives to follow")
    deaths, at_risk = _rows(times)
    with np.errstate(invalid="ignore"):  # none at risk: 0 / 0
        hazard = deaths / at_risk
    survival = ecdf(CensoredData.right_censored(times.record, ~times.died)).sf
    at = np.arange(1, len(times.steps))
    value = survival.evaluate(at)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Greenwood's variance is not finite where S is 1 or 0
        band = survival.confidence_interval(method="log-log")
    low, high = band.low.evaluate(at), band.high.evaluate(at)
    low = np.where(np.isnan(low), np.floor(value), low)
    high = np.where(np.isnan(high), np.fmin.accumulate(high), high)  # all died: the last one known
    high = np.where(value == 1, 1.0, high)
    limits = share_interval(deaths, at_risk)
    steps = times.steps
    return LifeTable(steps[:-1], steps[1:], at_risk, deaths, hazard, *limits, value, low, high)


def _rows(times: Times) -> tuple[np.ndarray, np.ndarray]:
    """Deaths, and units at risk, in each interval, (P - 1,) each."""
    P = len(times.steps)
    leaving = np.bincount(times.record, minlength=P)
    at_risk = leaving[::-1].cumsum()[::-1][1:]
    return np.bincount(times.record[times.died], minlength=P)[1:], at_risk


class LogRank(NamedTuple):
    """Whether two groups die at the same hazard.

    ``z`` : above 0 when the first dies sooner. ``p`` : of both sides. ``observed`` : deaths in the
    first group; ``expected`` : if its units shared the hazard of all.
    """

    z: float
    p: float
    observed: int
    expected: float


def logrank(a: Times, b: Times) -> LogRank:
    """Compare the first deaths of two layers, or of two arms (Mantel 1966).

    Parameters
    ----------
    a, b : Times
        with the same steps.

    Returns
    -------
    LogRank

    Raises
    ------
    UserError
        other steps; or nobody died.

    Examples
    --------
    >>> steps = np.array([0, 10, 20, 30])
    >>> soon = Times(steps, np.array([1, 1, 1, 2, 2]), np.ones(5, bool))
    >>> late = Times(steps, np.array([2, 3, 3, 3, 3]), np.array([1, 1, 0, 0, 0], bool))
    >>> test = logrank(soon, late)
    >>> round(test.z, 2), round(test.p, 4), test.observed, round(test.expected, 2)
    (2.65, 0.008, 5, 2.36)
    """
    from scipy import stats

    if not np.array_equal(a.steps, b.steps):
        raise UserError(
            "these histories have records at different steps; compare those that share them"
        )
    if not a.died.any() and not b.died.any():
        raise UserError("no unit died in either group: there are no times of death to compare")
    if not len(a.record) or not len(b.record):
        raise UserError("one of the groups has no units that were on at the first record")
    with np.errstate(invalid="ignore", divide="ignore"):
        result = stats.logrank(
            *(stats.CensoredData.right_censored(t.record, ~t.died) for t in (a, b))
        )
    (d_a, n_a), (d_b, n_b) = _rows(a), _rows(b)
    expected = (d_a + d_b) * n_a / np.maximum(n_a + n_b, 1)
    if not math.isfinite(result.statistic):
        raise UserError("no unit died while units of both groups were at risk: nothing to compare")
    return LogRank(
        float(result.statistic), float(result.pvalue), int(d_a.sum()), float(expected.sum())
    )


class Fit(NamedTuple):
    """Survival ``exp(-(t / scale)**shape)``, against one of constant hazard ``exp(-rate * t)``.

    ``shape`` : below 1 the hazard falls with time, above 1 it rises; with 95 % limits.
    ``scale``, ``rate`` : in steps, and per step. ``aic_difference`` : of the exponential minus
    that of the Weibull: above 0 speaks for a hazard that changes, above 10 strongly.
    """

    shape: Estimate
    scale: float
    rate: float
    aic_difference: float


# The largest and smallest shape that is tried, as a logarithm.
_SHAPES = 3.0


def exponential_or_weibull(times: Times) -> Fit:
    """Fit both laws to interval-censored deaths by maximum likelihood.

    A death between steps a and b has the likelihood S(a) - S(b), a unit last seen alive at step c
    has S(c). The limits of the shape are those of its likelihood ratio.

    Parameters
    ----------
    times : Times

    Returns
    -------
    Fit

    Raises
    ------
    UserError
        deaths in fewer than 3 intervals.

    Examples
    --------
    >>> rng, steps = np.random.default_rng(0), np.arange(0, 501, 10)
    >>> record = np.ceil(rng.exponential(200, 5000) / 10).astype(int)
    >>> t = Times(steps, np.minimum(record, 50), record <= 50)
    >>> fit = exponential_or_weibull(t)
    >>> fit.shape.low < 1 < fit.shape.high, round(1 / fit.rate, -1), fit.aic_difference < 0
    (True, 200.0, True)
    """
    from scipy.optimize import brentq, minimize_scalar

    deaths, _ = _rows(times)
    which = np.flatnonzero(deaths)
    if len(which) < 3:
        raise UserError(
            f"deaths fall into {len(which)} intervals between records; to fit a hazard over time, "
            "3 or more are needed: record the history more often, or train longer"
        )
    unit = float(times.steps[-1])  # time runs from 0 to 1 within
    t = times.steps / unit
    alive = np.bincount(times.record[~times.died], minlength=len(t))

    def loss(log_rate: float, shape: float) -> float:
        h = math.exp(log_rate) * t**shape  # cumulative hazard at each record
        within = np.log(-np.expm1(h[which] - h[which + 1]))
        return float(alive @ h + deaths[which] @ (h[which] - within))

    def best(log_shape: float) -> tuple[float, float]:
        """Return the smallest loss of a shape, and the log rate that has it."""
        shape = math.exp(log_shape)
        exposure = alive @ t**shape + deaths[which] @ t[which + 1] ** shape
        start = math.log(deaths.sum() / exposure)
        found = minimize_scalar(loss, bracket=(start - 0.5, start + 0.5), args=(shape,))
        return float(found.fun), float(found.x)

    found = minimize_scalar(
        lambda s: best(s)[0], bounds=(-_SHAPES, _SHAPES), method="bounded", options={"xatol": 1e-6}
    )
    log_shape = float(found.x)
    (smallest, log_rate), (constant, log_constant) = best(log_shape), best(0.0)

    def too_far(s: float) -> float:
        return best(s)[0] - smallest - 1.920729  # half of the chi-squared quantile

    limits = [
        brentq(too_far, log_shape, end, xtol=1e-6) if too_far(end) > 0 else end
        for end in (-_SHAPES, _SHAPES)
    ]
    shape = Estimate(*(math.exp(s) for s in (log_shape, *limits)))
    return Fit(
        shape=shape,
        scale=unit * math.exp(-log_rate / shape.value),
        rate=math.exp(log_constant) / unit,
        aic_difference=2 * (constant - smallest) - 2,
    )
