"""Birth and silence of hidden units, as far as probes can tell."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minirelu.errors import UserError


class Lives(NamedTuple):
    """For each unit, steps of probes, (F,) int64; -1 where there is no such probe."""

    first_on: np.ndarray  # the first probe at which it was on
    last_on: np.ndarray  # the last one
    silent_since: np.ndarray  # the first of the silent probes at the end


def lives(steps: list[int], on: np.ndarray) -> Lives:
    """When each unit was first and last on, and since when it has been silent.

    What happens between two probes is not seen: a unit whose last probe on was step a and that is
    silent since step b fell silent somewhere between them; and silent means on at none of a
    probe's tokens, not more.

    Parameters
    ----------
    steps : list of P int
        of the probes, in order.
    on : bool ndarray, (P, F)
        whether a unit was on at one token or more of each probe.

    Returns
    -------
    Lives

    Raises
    ------
    ValueError
        no probes, or not as many steps as rows.

    Examples
    --------
    >>> on = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 1, 0, 0]], bool)
    >>> result = lives([0, 10, 20], on)
    >>> result.first_on, result.last_on
    (array([ 0,  0, 10, -1]), array([ 0, 20, 10, -1]))
    >>> result.silent_since
    array([10, -1, 20,  0])
    """
    P = len(on)
    if not P or len(steps) != P:
        raise UserError(f"lives need one step for each of {P} probes, not {len(steps)}")
    ever = on.any(axis=0)
    first = on.argmax(axis=0)  # index of a probe
    after = np.where(ever, P - on[::-1].argmax(axis=0), 0)  # index one past the last probe on
    at = np.array([*steps, -1], np.int64)
    return Lives(np.where(ever, at[first], -1), np.where(ever, at[after - 1], -1), at[after])
