"""What the field calls a dead unit: its definitions side by side, and how far they disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from minirelu.errors import UserError
from minirelu.sparsity.dormancy import layer_scores


def definitions(
    tokens_on: np.ndarray,
    n_tokens: int,
    mean_post: np.ndarray,
    windows: int = 3,
    rare: float = 0.001,
    taus: Sequence[float] = (0.025, 0.1),
) -> dict[str, np.ndarray]:
    """Find the units of a layer that each definition takes for dead, at the last record.

    * silent: on at no token of the probe (Voita et al. 2023)
    * rare: on at less than a share ``rare`` of them, as analyses of sparse autoencoders count
    * tau-dormant: a mean activation of at most ``tau`` times the layer's (Sokar et al. 2023)
    * windowed: silent at each of the last ``windows`` records, as counters that reset do

    Parameters
    ----------
    tokens_on : int ndarray, (P, F)
        tokens of the probe at which each unit was on, at the records up to the one asked about.
    n_tokens : int
        of the probe.
    mean_post : ndarray, (F,)
        mean activation of each unit at the last record.
    windows : int
        1 or more.
    rare : float
    taus : sequence of float

    Returns
    -------
    dict of bool ndarrays, (F,)
        by name; others, such as ``LifeHistories.dead[-1]``, can be put beside these.

    Raises
    ------
    UserError
        fewer than ``windows`` records.

    Examples
    --------
    >>> on = np.array([[9, 5, 1, 0], [9, 0, 1, 0], [9, 0, 1, 0]])
    >>> for name, dead in definitions(on, 2000, np.array([3.0, 0, 0.01, 0])).items():
    ...     print(f"{name:26}", dead.astype(int))
    silent on 2,000 tokens     [0 1 0 1]
    on at < 0.1 % of tokens    [0 1 1 1]
    0.025-dormant              [0 1 1 1]
    0.1-dormant                [0 1 1 1]
    silent at 3 records        [0 0 0 1]
    """
    if not 1 <= windows <= len(tokens_on):
        raise UserError(
            f"windows: {windows!r} is not allowed; with {len(tokens_on)} records up to this step, "
            f"it must be from 1 to {len(tokens_on)}"
        )
    last, scores = tokens_on[-1], layer_scores(np.asarray(mean_post, np.float64))
    found = {
        f"silent on {n_tokens:,} tokens": last == 0,
        f"on at < {100 * rare:g} % of tokens": last < rare * n_tokens,
    }
    # Where nothing is on, scores are NaN and all are dormant, as in dormant_share.
    found |= {f"{tau:g}-dormant": ~(scores > tau) for tau in taus}
    return found | {f"silent at {windows} records": (tokens_on[-windows:] == 0).all(axis=0)}


class Agreement(NamedTuple):
    """Of n definitions: ``names``; ``units`` each takes for dead, (n,); ``jaccard``, (n, n).

    ``jaccard`` : units that two of them take for dead over those that one of them does; 1 where
    they agree, NaN where neither finds any.
    """

    names: list[str]
    units: np.ndarray
    jaccard: np.ndarray


def agreement(sets: Mapping[str, np.ndarray]) -> Agreement:
    """Compare each definition with each other one.

    Parameters
    ----------
    sets : mapping of bool ndarrays, (F,)
        see :func:`definitions`.

    Returns
    -------
    Agreement

    Raises
    ------
    UserError
        sets over other numbers of units.

    Examples
    --------
    >>> a = agreement({"a": np.array([1, 1, 0], bool), "b": np.array([0, 1, 1], bool)})
    >>> a.units, a.jaccard.round(2)
    (array([2, 2]), array([[1.  , 0.33],
           [0.33, 1.  ]]))
    """
    if len({len(s) for s in sets.values()}) != 1:
        raise UserError("definitions of dead units can be compared over the same units only")
    dead = np.array(list(sets.values())).astype(np.int64)
    both = dead @ dead.T
    units = both.diagonal().copy()
    with np.errstate(invalid="ignore"):  # neither finds any: 0 / 0
        return Agreement(list(sets), units, both / (units[:, None] + units - both))
