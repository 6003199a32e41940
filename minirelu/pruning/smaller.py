"""The smaller model: rows of ``W_in``, ``b_in`` and ``W_out`` that go, and what is left."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from minirelu.config import ModelConfig
from minirelu.errors import UserError
from minirelu.model.activation_functions import act_fn_settings
from minirelu.model.parameters import Parameters


def smaller_config(config: ModelConfig, keep: Sequence[np.ndarray]) -> ModelConfig:
    """Return the configuration with as many hidden units in each layer as are kept.

    A layer of which none is kept has one, whose weights :func:`smaller` makes 0.

    Parameters
    ----------
    config : ModelConfig
    keep : sequence of L arrays, (F,) bool

    Raises
    ------
    UserError
        masks for another model; fewer units than ``topk`` keeps on.

    Examples
    --------
    >>> config = ModelConfig(n_layers=2, n_heads=1, d_model=2, d_mlp=3, n_ctx=4, d_vocab=5)
    >>> smaller_config(config, [np.array([1, 0, 1], bool), np.array([0, 0, 0], bool)]).d_mlp
    (2, 1)
    """
    if [k.shape for k in keep] != [(F,) for F in config.mlp_widths]:
        raise UserError(
            f"keep: units of {len(keep)} layers, {', '.join(str(len(k)) for k in keep)}; the model "
            f"has {config.mlp_widths}"
        )
    widths = tuple(max(1, int(k.sum())) for k in keep)
    if "act_k" in act_fn_settings(config.act_fn) and min(widths) < config.act_k:
        raise UserError(
            f"act_fn {config.act_fn} keeps {config.act_k} units on at each token; layer "
            f"{int(np.argmin(widths))} would be left with {min(widths)}; remove fewer"
        )
    same = len(set(widths)) == 1
    return dataclasses.replace(config, d_mlp=widths[0] if same else widths)


def smaller(params: Parameters, keep: Sequence[np.ndarray]) -> Parameters:
    """Copy the weights without the hidden units that are not kept.

    Also for what is laid out like weights, such as Adam's moments.

    The result computes exactly what the model would with the other units' outputs set to 0 (but
    for ``topk``, where the units left get the place of those that went).

    Parameters
    ----------
    params : Parameters
    keep : sequence of L arrays, (F,) bool

    Returns
    -------
    left : Parameters
        with the configuration of :func:`smaller_config`.

    Examples
    --------
    >>> from minirelu.model.parameters import init_params
    >>> config = ModelConfig(n_layers=1, n_heads=1, d_model=2, d_mlp=3, n_ctx=4, d_vocab=5)
    >>> params = init_params(config)
    >>> left = smaller(params, [np.array([True, False, True])])
    >>> left["blocks.0.mlp.W_in"].shape
    (2, 2)
    """
    config = smaller_config(params.config, keep)
    left = Parameters(config, params.dtype)
    for name, array in params.items():
        _, _, tensor = name.rpartition("mlp.")
        if tensor in ("W_in", "b_in", "W_out"):
            stays = keep[int(name.split(".")[1])]
            left[name][: stays.sum()] = array[stays]  # of a layer without units, one of zeros
        else:
            left[name][...] = array
    return left
