"""Units that no input can switch on: a bound on what a layer norm can hand to a hidden unit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from minirelu.config import ModelConfig
from minirelu.model.activation_functions import ActFn, is_on


class Reach(NamedTuple):
    """How far the pre-activations of a layer's units go, on whatever input; (F,) each.

    ``silent`` : whether the unit is certified silent, bool.
    ``offset``, ``reach`` : the pre-activation is ``offset``, give or take less than ``reach``.
    ``ratio`` : (offset - threshold) / reach: at -1 or below the unit is silent.
    """

    silent: np.ndarray
    offset: np.ndarray
    reach: np.ndarray
    ratio: np.ndarray


def certified_silent(params: Mapping[str, np.ndarray], config: ModelConfig) -> list[Reach]:
    r"""Say which hidden units are silent on every possible input, and how far the others are.

    Unit j reads ``x = g * z + beta``, where ``z = (r - mean(r)) / sqrt(variance(r) + eps)`` is a
    normalised vector r of the residual stream. Whatever r is,

    * the entries of z add up to 0: with P the projection that removes the mean, ``P z = z``;
    * ``z·z = C variance / (variance + eps) < C``.

    So ``pre_j = w_j·x + b_j = P(g * w_j)·z + w_j·beta + b_j``, and by Cauchy and Schwarz::

        |pre_j - offset_j| < reach_j    with   offset_j = w_j·beta + b_j
                                               reach_j  = sqrt(C) |P(g * w_j)|

    The bound is tight: with r a large multiple of ``P(g * w_j)``, pre_j comes as near to
    ``offset_j + reach_j`` as one likes. It is exact as arithmetic is: round-off left aside. It asks
    nothing of tokens: a unit that it does not certify may still be out of their reach. On trained
    runs it has certified next to nothing; ``minirelu wake`` prints what it yields on a run.

    Parameters
    ----------
    params : mapping of ndarray
    config : ModelConfig
        ``act_fn`` must be on above a threshold and off below it, as all but topk are. With topk
        others decide who is on, and no unit is certified.

    Returns
    -------
    list of L Reach

    Examples
    --------
    The second of two units needs more than its weights can give:

    >>> import minirelu as mr
    >>> config = mr.ModelConfig(n_layers=1, n_heads=1, d_model=4, d_mlp=2, n_ctx=2, d_vocab=5)
    >>> params = mr.init_params(config)
    >>> params["blocks.0.mlp.W_in"][:] = [1, -1, 0, 0]
    >>> params["blocks.0.mlp.b_in"][:] = [-2, -3]
    >>> (layer,) = certified_silent(params, config)
    >>> layer.silent, layer.reach.round(3), layer.ratio.round(3)
    (array([False,  True]), array([2.828, 2.828]), array([-0.707, -1.061]))
    """
    threshold = 0.0 if by_rank(config) else on_above(config.activation)
    by_layer = []
    for l, F in enumerate(config.mlp_widths):
        block = f"blocks.{l}."
        W = params[block + "mlp.W_in"].astype(np.float64)  # (F, C)
        gained = W * params[block + "ln2.w"]
        reach = np.linalg.norm(gained - gained.mean(axis=1, keepdims=True), axis=1)
        reach *= math.sqrt(config.d_model)
        offset = np.zeros(F)
        if config.bias:
            offset = W @ params[block + "ln2.b"] + params[block + "mlp.b_in"]
        silent = offset + reach <= threshold
        if by_rank(config):
            silent[:] = False
        with np.errstate(divide="ignore", invalid="ignore"):  # a unit without weights
            ratio = (offset - threshold) / reach
        by_layer.append(Reach(silent, offset, reach, ratio))
    return by_layer


def by_rank(config: ModelConfig) -> bool:
    """Whether a unit is on by its rank among its layer's, not by its own pre-activation alone."""
    return config.act_fn == "topk"


def on_above(act: ActFn) -> float:
    """Pre-activation above which a unit is on, for a function that has one; found by halving.

    >>> from minirelu.model.activation_functions import activation_function
    >>> [on_above(activation_function(name)) for name in ("relu", "leaky_relu", "gelu")]
    [0.0, 0.0, 0.0]
    """

    def on(pre: float) -> bool:
        return bool(is_on(act.forward(np.array([pre])), act.off)[0])

    low, high = -1024.0, 1024.0
    if on(low) or not on(high):
        return -math.inf if on(low) else math.inf
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if on(middle) else (middle, high)
    return low
