"""What each hidden unit writes: the tokens whose logits its output row raises and lowers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

_BLOCK = 1 << 22  # numbers (unit, token of the vocabulary) held at a time


class Writes(NamedTuple):
    """Tokens that U units raise and lower most, (U, k) each, strongest first.

    ``raised`` and ``lowered`` are ids, ``up`` and ``down`` the direct effects on their logits.
    """

    raised: np.ndarray
    up: np.ndarray
    lowered: np.ndarray
    down: np.ndarray


def direct_effects(
    params: Mapping[str, np.ndarray], layer: int, units: np.ndarray | None = None
) -> np.ndarray:
    """What units write to the logits directly, past all later layers, (U, V).

    The unit's output row goes through the final layer norm as that norm would have it: its mean
    over d_model is removed, and it is multiplied by the gain. The norm's division by the standard
    deviation depends on the text; it is left out, and scales all logits of a token alike. Then the
    unembedding, and the mean over the vocabulary is removed, which softmax does not see. The
    numbers are for an activation of 1; where activations can be below 0, signs turn with them.

    Parameters
    ----------
    params : mapping of ndarray
    layer : int
    units : int ndarray, optional
        without it, all.

    Examples
    --------
    >>> import minirelu as mr
    >>> config = mr.ModelConfig(n_layers=1, n_heads=2, d_model=4, d_mlp=8, n_ctx=6, d_vocab=10)
    >>> effects = direct_effects(mr.init_params(config, dtype=np.float64), 0)
    >>> effects.shape, bool(abs(effects.mean(axis=1)).max() < 1e-12)
    ((8, 10), True)
    """
    rows = params[f"blocks.{layer}.mlp.W_out"]  # (F, C)
    rows = rows if units is None else rows[units]
    written = (rows - rows.mean(axis=1, keepdims=True)) * params["ln_final.w"]  # (U, C)
    # the mean over the vocabulary, removed from the factor that is smaller
    W_E = params["embed.W_E"]
    return written @ (W_E - W_E.mean(axis=0)).T


def writes(
    params: Mapping[str, np.ndarray], layer: int, k: int = 5, units: np.ndarray | None = None
) -> Writes:
    """Find the tokens that units raise and lower most; memory is bounded.

    Parameters
    ----------
    params : mapping of ndarray
    layer : int
    k : int
        tokens of each unit, at most the vocabulary.
    units : int ndarray, optional
        without it, all.

    Examples
    --------
    >>> import minirelu as mr
    >>> config = mr.ModelConfig(n_layers=1, n_heads=2, d_model=4, d_mlp=8, n_ctx=6, d_vocab=10)
    >>> found = writes(mr.init_params(config), 0, k=3)
    >>> found.raised.shape, bool((found.up[:, 0] >= found.up[:, 1]).all())
    ((8, 3), True)
    """
    V = len(params["embed.W_E"])
    if units is None:
        units = np.arange(len(params[f"blocks.{layer}.mlp.W_out"]))
    k, at_once = min(k, V), max(1, _BLOCK // V)
    parts = []
    for first in range(0, max(1, len(units)), at_once):
        effects = direct_effects(params, layer, units[first : first + at_once])
        raised, lowered = _largest(effects, k), _largest(-effects, k)
        ups, downs = (np.take_along_axis(effects, ids, axis=1) for ids in (raised, lowered))
        parts.append(Writes(raised, ups, lowered, downs))
    return Writes(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def _largest(values: np.ndarray, k: int) -> np.ndarray:
    """Columns of the k largest of each row, in order."""
    V = values.shape[1]
    ids = np.argpartition(values, V - k, axis=1)[:, V - k :]
    order = np.argsort(-np.take_along_axis(values, ids, axis=1), axis=1, kind="stable")
    return np.take_along_axis(ids, order, axis=1)


def writes_back(
    params: Mapping[str, np.ndarray], layer: int, units: np.ndarray, triggers: np.ndarray
) -> np.ndarray:
    """Whether detectors write their trigger back, or remove it.

    Parameters
    ----------
    params : mapping of ndarray
    layer : int
    units : int ndarray, (U,)
    triggers : int ndarray, (U,)
        a token of each: of a detector of several, the one with most firings.

    Returns
    -------
    int ndarray, (U,)
        1 where the trigger is within the highest 1 % of the vocabulary's direct effects, -1 where
        it is within the lowest 1 %, otherwise 0. By chance it is 1 and -1 once in a hundred each.

    Examples
    --------
    >>> import minirelu as mr
    >>> config = mr.ModelConfig(n_layers=1, n_heads=2, d_model=4, d_mlp=8, n_ctx=6, d_vocab=10)
    >>> params = mr.init_params(config)
    >>> found = writes(params, 0, k=1)
    >>> ends = np.array([found.raised[2, 0], found.lowered[2, 0]])
    >>> writes_back(params, 0, np.array([2, 2]), ends)
    array([ 1, -1])
    """
    V = len(params["embed.W_E"])
    result = np.zeros(len(units), np.int64)
    at_once = max(1, _BLOCK // V)
    for first in range(0, len(units), at_once):
        part = slice(first, first + at_once)
        effects = direct_effects(params, layer, units[part])
        own = np.take_along_axis(effects, triggers[part, None], axis=1)
        highest = 100 * (effects > own).sum(axis=1) < V
        lowest = 100 * (effects < own).sum(axis=1) < V
        result[part] = highest.astype(np.int64) - lowest
    return result
