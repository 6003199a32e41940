"""How much a variable tells about whether a unit fires, from counts of firings at its values."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from minirelu.specificity.variables import Variable


class Cells(NamedTuple):
    """At which values units fire: all pairs (unit, value) with a firing, by unit, then by value.

    ``unit``, ``value`` (a code of the variable) and ``firings`` have one entry for each.
    """

    unit: np.ndarray
    value: np.ndarray
    firings: np.ndarray


def cells(unit: np.ndarray, place: np.ndarray, U: int, variable: Variable) -> Cells:
    """Count firings, given as pairs (unit, place in the text).

    >>> read = Variable(np.array([0, 1, 0]), np.array([2, 1]), np.array([[5], [7]]))
    >>> cells(np.array([0, 0, 1]), np.array([0, 2, 1]), 2, read)
    Cells(unit=array([0, 1]), value=array([0, 1]), firings=array([2, 1]))
    """
    X = len(variable.n)
    n = np.bincount(unit * X + variable.codes[place], minlength=U * X)
    occupied = np.flatnonzero(n)
    return Cells(*np.divmod(occupied, X), n[occupied])


def information(found: Cells, variable: Variable, on: np.ndarray) -> np.ndarray:
    """Mutual information of firing and a variable, in nats, corrected for small samples.

    With n_x tokens of value x out of N, of which the unit is on at a share f_x, and f in all,

        I = sum_x n_x/N [f_x ln(f_x/f) + (1-f_x) ln((1-f_x)/(1-f))]

    (for position: Voita et al. 2023). Of finite text that is too large: chance makes the f_x
    differ. Each entropy is therefore corrected by (occupied cells - 1) / 2N (Miller 1955), and so
    I = H(x) + H(on) - H(x, on) by (m_x + m_on - m_both - 1) / 2N, which is 0 or less. Where values
    are many and firings few, a part of the bias stays; that is what the null is for.

    Parameters
    ----------
    found : Cells
    variable : Variable
        the one whose cells they are.
    on : int ndarray, (U,)
        firings of each unit.

    Returns
    -------
    ndarray, (U,)
        may be a little below 0; 0 for a unit that is never or always on.

    Examples
    --------
    A unit that fires on one of two equally frequent tokens tells which: ln 2, less 1 / 2N.

    >>> read = Variable(np.tile([0, 1], 500), np.array([500, 500]), np.array([[5], [7]]))
    >>> unit, place = np.zeros(500, int), np.arange(0, 1000, 2)
    >>> information(cells(unit, place, 1, read), read, np.array([500])).round(4)
    array([0.6936])
    """
    N, U, g = len(variable.codes), len(on), n_ln_n(len(variable.codes))
    k, n = found.firings, variable.n[found.value]
    # In counts, N I = sum_x [k ln k + (n-k) ln(n-k) - n ln n] - the same of the sums; a value
    # without firings adds 0.
    each = g[k] + g[n - k] - g[n]
    plain = (np.bincount(found.unit, each, U) - (g[on] + g[N - on] - g[N])) / N
    m_x, m_on = len(variable.n), 1 * (on > 0) + (on < N)
    always = np.bincount(found.unit, k == n, U)  # values at which there is no cell of being off
    m_both = np.bincount(found.unit, minlength=U) + m_x - always
    return plain + (m_x + m_on - m_both - 1) / (2 * N)


def effective_number(found: Cells, on: np.ndarray) -> np.ndarray:
    """How many values a unit fires on, were all alike: exp of their entropy over its firings.

    Parameters
    ----------
    found : Cells
    on : int ndarray, (U,)

    Returns
    -------
    ndarray, (U,)
        0 for a unit that is never on; never more than its firings.

    Examples
    --------
    >>> two = Cells(np.array([0, 0]), np.array([3, 5]), np.array([10, 10]))
    >>> effective_number(two, np.array([20])).round(6)
    array([2.])
    """
    g = n_ln_n(int(on.max(initial=0)))
    entropy = np.log(np.maximum(on, 1)) - np.bincount(
        found.unit, g[found.firings], len(on)
    ) / np.maximum(on, 1)
    return np.where(on > 0, np.exp(entropy), 0.0)


@functools.lru_cache(maxsize=4)
def n_ln_n(most: int) -> np.ndarray:
    """``n ln n`` for n from 0 to ``most``; 0 at 0.

    >>> n_ln_n(2).round(3)
    array([0.   , 0.   , 1.386])
    """
    n = np.arange(most + 1, dtype=np.float64)
    return n * np.log(np.maximum(n, 1))
