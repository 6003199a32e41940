"""Where pre-activations go while a model trains, and what pushes them."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from minirelu.config import ModelConfig
from minirelu.model.activation_functions import is_on
from minirelu.model.cross_entropy import cross_entropy
from minirelu.model.parameters import Parameters
from minirelu.model.transformer import backward, check_tokens, forward


class Drift(NamedTuple):
    """Of each layer, (L,) float64.

    ``mean_pre`` : mean pre-activation, over units and tokens.
    ``mean_grad_on`` : mean gradient of the loss, summed over tokens, with respect to the
    pre-activations that are on; NaN where none is. Above 0, a step of gradient descent lowers them.
    ``mean_b_in``, ``mean_W_in`` : mean bias and mean weight.
    """

    mean_pre: np.ndarray
    mean_grad_on: np.ndarray
    mean_b_in: np.ndarray
    mean_W_in: np.ndarray


def drift(params: Parameters, sequences: np.ndarray, config: ModelConfig) -> Drift:
    """Measure what moves the units of each layer towards silence, or away from it.

    Follows the analysis of arXiv 2605.17659: at initialisation the gradient on active
    pre-activations is 0 or more in expectation, so that they drift down without any help from
    the data.

    Parameters
    ----------
    params : Parameters
    sequences : int ndarray, (S, T + 1)
        inputs and, one further, targets.
    config : ModelConfig

    Returns
    -------
    Drift

    Raises
    ------
    ValueError
        sequences of the wrong shape, type or range.

    Examples
    --------
    >>> import minirelu as mr
    >>> config = mr.ModelConfig(n_layers=2, n_heads=2, d_model=4, d_mlp=8, n_ctx=6, d_vocab=10)
    >>> d = drift(mr.init_params(config), np.array([[1, 2, 3, 4]]), config)
    >>> d.mean_pre.shape, d.mean_b_in
    ((2,), array([0., 0.]))
    """
    tokens = check_tokens(sequences[:, :-1], config, "tokens")
    targets = check_tokens(sequences[:, 1:], config, "targets")
    params = _with_biases(params, config)  # whose gradient sums that of the pre-activations
    layers = [f"blocks.{l}.mlp." for l in range(config.n_layers)]
    pre, grad, on = (np.zeros(config.n_layers) for _ in range(3))
    for i in range(len(tokens)):  # one at a time, since this keeps every activation
        logits, acts = forward(params, tokens[i : i + 1], params.config)
        _, dlogits = cross_entropy(logits, targets[i : i + 1])
        grads = backward(params, acts, dlogits, params.config)
        for l, name in enumerate(layers):
            pre[l] += acts[name + "hook_pre"].sum(dtype=np.float64)
            on[l] += is_on(acts[name + "hook_post"], config.activation.off).sum()
            # the loss is a mean over the sequence's tokens; as sums, sequences can be added up
            grad[l] += grads[name + "b_in"].sum(dtype=np.float64) * tokens.shape[1]
    with np.errstate(invalid="ignore"):  # nothing on: 0 / 0
        mean_grad_on = grad / on
    return Drift(
        pre / (np.array(config.mlp_widths) * tokens.size),
        mean_grad_on,
        np.array([params[name + "b_in"].mean(dtype=np.float64) for name in layers]),
        np.array([params[name + "W_in"].mean(dtype=np.float64) for name in layers]),
    )


def _with_biases(params: Parameters, config: ModelConfig) -> Parameters:
    """The same model with a bias of 0 wherever it lacks one."""
    same = Parameters(dataclasses.replace(config, bias=True), params.dtype)
    for name, p in same.items():
        p[...] = params[name] if name in params else 0
    return same
