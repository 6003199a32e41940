"""How often units fall silent and come back, against what a finite text shows of rare units."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from minirelu.death.life_histories import LifeHistories
from minirelu.errors import UserError
from minirelu.intervals import Estimate, count_interval


def transitions(silent: np.ndarray) -> np.ndarray:
    """Count the units that go from one state to another, between each record and the next.

    Parameters
    ----------
    silent : bool ndarray, (P, F)
        or dead, as ``LifeHistories.dead``.

    Returns
    -------
    int64 ndarray, (P - 1, 2, 2)
        ``[i, a, b]``: units in state a at record i and b at record i + 1; 0 is on, 1 is silent.

    Examples
    --------
    >>> transitions(np.array([[0, 0, 1], [0, 1, 0]], bool))
    array([[[1, 1],
            [1, 0]]])
    """
    before, after = silent[:-1], silent[1:]
    counts = np.empty((len(before), 2, 2), np.int64)
    counts[:, 1, 1] = (before & after).sum(axis=1)
    counts[:, 1, 0] = before.sum(axis=1) - counts[:, 1, 1]
    counts[:, 0, 1] = after.sum(axis=1) - counts[:, 1, 1]
    counts[:, 0, 0] = silent.shape[1] - counts[:, 1].sum(axis=1) - counts[:, 0, 1]
    return counts


class Rates(NamedTuple):
    """Deaths and revivals in each of the P - 1 intervals between records, (P - 1,) each.

    ``at_risk`` and ``dead`` are the units alive and dead at the interval's start; ``deaths`` and
    ``revivals`` how many of them changed sides within it; ``steps`` its length.
    """

    steps: np.ndarray
    at_risk: np.ndarray
    deaths: np.ndarray
    dead: np.ndarray
    revivals: np.ndarray

    def deaths_per_step(self, intervals: slice = slice(None)) -> Estimate:
        """Deaths per step and unit alive, over some of the intervals."""
        return _per_step(self.deaths[intervals], self.at_risk[intervals], self.steps[intervals])

    def revivals_per_step(self, intervals: slice = slice(None)) -> Estimate:
        """Revivals per step and dead unit, over some of the intervals."""
        return _per_step(self.revivals[intervals], self.dead[intervals], self.steps[intervals])


def _per_step(events: np.ndarray, units: np.ndarray, steps: np.ndarray) -> Estimate:
    k, exposure = int(events.sum()), float(units @ steps)
    if not exposure:
        return Estimate(math.nan, 0.0, math.inf)
    low, high = count_interval(k)
    return Estimate(k / exposure, low / exposure, high / exposure)


def rates(lives: LifeHistories) -> Rates:
    """Count deaths and revivals in each interval, and the units to which they could happen.

    Re-deaths count as deaths. Units that were never on yet are neither alive nor dead.

    Parameters
    ----------
    lives : LifeHistories

    Returns
    -------
    Rates

    Examples
    --------
    >>> from minirelu.death.life_histories import life_histories
    >>> on = np.array([[1, 1, 0], [0, 1, 0], [0, 1, 0], [5, 1, 1]])
    >>> r = rates(life_histories([0, 10, 20, 30], on, on, n_confirm=64, successive=2))
    >>> r.at_risk, r.deaths, r.revivals
    (array([2, 1, 1]), array([1, 0, 0]), array([0, 0, 1]))
    >>> r.deaths_per_step().value, r.revivals_per_step().value
    (0.025, 0.05)
    """
    P, first = len(lives.steps), lives.first_on
    dead = lives.dead.sum(axis=1)
    ever_on = np.bincount(first[first >= 0], minlength=P).cumsum()
    back = lives.deaths.back[lives.deaths.back >= 0]
    return Rates(
        steps=np.diff(lives.steps),
        at_risk=(ever_on - dead)[:-1],
        deaths=np.bincount(lives.deaths.high, minlength=P)[1:],
        dead=dead[:-1],
        revivals=np.bincount(back, minlength=P)[1:],
    )


class Flicker(NamedTuple):
    """Returns from silence, and how many of them chance alone would show.

    ``observed``, ``expected`` : (P,), at each record. ``ratio`` : of their sums, with a 95 %
    interval; infinite where nothing was expected.
    """

    observed: np.ndarray
    expected: np.ndarray
    ratio: Estimate


def flicker(
    sequences_on: np.ndarray,
    n_sequences: int,
    confirm_on: np.ndarray,
    n_confirm: int,
    successive: int = 3,
    confirmed: bool = True,
) -> Flicker:
    """Compare the returns from death with the flicker that rare firing shows on finite texts.

    A return: a unit that was on before is silent on the probe at m = ``successive`` records in a
    row, and on the confirming text at the last of these, then on at the next. A unit that is on in
    a share r of all sequences, then as before, does so by chance with probability
    ``(1-r)**M - (1-r)**(M+S)``, on ``M = m*S + S'`` independent sequences and the S of the next
    record. That is estimated from the confirming text at the other m of these m + 1 records: with K
    of its N sequences on, ``C(N-K, M) / C(N, M)`` is the one unbiased estimate of ``(1-r)**M``
    (Hurlbert 1971). No sequence that makes the event enters it.

    A ratio of 1 or less: nothing but flicker. It may lie well below 1, as the probe is the same
    text at every record: what it misses once, it misses again. Far above 1, units that had truly
    stopped fire again.

    Parameters
    ----------
    sequences_on, confirm_on : int ndarray, (P, F)
        sequences of the probe and of the confirming text with each unit on.
    n_sequences, n_confirm : int
        S and S', how many each text has; for m = 3, S' must be 2 S or more.
    successive : int
        m, 1 or more.
    confirmed : bool
        False for returns from any m silent records, whatever the confirming text says; with m = 1
        these are all the changes from silent to on.

    Returns
    -------
    Flicker

    Raises
    ------
    UserError
        too few records, or too small a confirming text.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> r = np.full((40, 2000), 0.01)  # rates that never change
    >>> f = flicker(rng.binomial(16, r), 16, rng.binomial(64, r), 64)
    >>> f.ratio.low < 1 < f.ratio.high
    True
    """
    P, S, m = len(sequences_on), n_sequences, successive
    if P < m + 2:
        raise UserError(
            f"{P} records are too few to see units return from {m} silent ones; {m + 2} or more "
            "are needed: record the history more often"
        )
    M, pooled = (m * S + n_confirm, m) if confirmed else (m * S, m + 1)
    if pooled * n_confirm < M + S:
        raise UserError(
            f"a confirming text of {n_confirm} sequences beside a probe of {S} is too small to "
            f"tell returns after {m} silent records from flicker; record a larger one"
        )
    # Rows are the records q at which a unit may return: m + 1, ..., P - 1.
    at = [slice(m + 1 - back, P - back) for back in range(m + 1)]  # q, q - 1, ..., q - m
    silent = sequences_on == 0
    on_before = np.logical_or.accumulate(~silent, axis=0)[: P - m - 1]
    returned = on_before & ~silent[at[0]]
    for rows in at[1:]:
        returned &= silent[rows]
    K = sum(confirm_on[rows].astype(np.int32) for rows in at)
    if confirmed:
        returned &= confirm_on[at[1]] == 0
        K -= confirm_on[at[1]]
    N = pooled * n_confirm
    chance = (_all_off(N, M) - _all_off(N, M + S))[K] * on_before
    observed, expected = (np.r_[np.zeros(m + 1), x.sum(axis=1)] for x in (returned, chance))
    return Flicker(
        observed.astype(np.int64), expected, _ratio(returned.sum(axis=0), chance.sum(axis=0))
    )


def _all_off(N: int, M: int) -> np.ndarray:
    """``C(N-K, M) / C(N, M)`` for K = 0 to N: that M of N sequences, K of them on, are all off."""
    from scipy.special import gammaln  # slow to load

    K = np.arange(N + 1)
    left = np.maximum(N - K - M, 0)
    log = gammaln(N - K + 1) - gammaln(left + 1) - gammaln(N + 1) + gammaln(N - M + 1)
    return np.where(N - K >= M, np.exp(log), 0.0)


def _ratio(observed: np.ndarray, expected: np.ndarray) -> Estimate:
    """Sum of observed counts (F,) over the sum expected, with a quasi-Poisson interval.

    The interval is that of a Poisson count, stretched by how much more, or less, the units scatter
    than such counts would; fewer than 20 returns cannot tell, and count as independent.
    """
    k, mean = float(observed.sum()), float(expected.sum())
    if not mean:
        return Estimate(math.inf if k else math.nan, 0.0, math.inf)
    ratio = k / mean
    scatter = float(((observed - ratio * expected) ** 2).sum()) / k if k >= 20 else 1.0
    low, high = count_interval(k / scatter)
    return Estimate(ratio, low * scatter / mean, high * scatter / mean)
