"""The activation functions in the kernels: forward above backward, in place.

Reference: ``minirelu.model.activation_functions``. ReLU, the default, is not taken from here by
``dense_mlp.py``, where it is faster as part of the loops around it. topk has to see all units of a
token at once, and does that in ``topk.py``.
"""

from __future__ import annotations

import math

import numpy as np

from minirelu.kernels.available import COMPILED
from minirelu.kernels.compiling import part
from minirelu.kernels.exp import exp

# What kernels know an activation function by.
CODES = {name: code for code, name in enumerate(COMPILED)}
RELU, RELU2, LEAKY_RELU, GELU, TOPK = (CODES[name] for name in COMPILED)
LEAK = 0.01


def _activate(
    act,  # which activation function, one of CODES, but not relu or topk
    values,  # (n,), pre-activations without their bias; becomes post
    bias,
    slope,  # (n,) for gelu, else empty
):
    """Add a unit's bias to some tokens' pre-activations, and apply the activation function."""
    n, zero, one = values.size, values.dtype.type(0), values.dtype.type(1)
    if act == RELU2:
        for i in range(n):
            value = values[i] + bias
            values[i] = zero if value <= zero else value * value
    elif act == LEAKY_RELU:
        leak = values.dtype.type(LEAK)
        for i in range(n):
            value = values[i] + bias
            values[i] = value if value > zero else leak * value
    else:
        half, inv_sqrt_2 = values.dtype.type(0.5), values.dtype.type(math.sqrt(0.5))
        inv_sqrt_2pi = values.dtype.type(1 / math.sqrt(2 * math.pi))
        for i in range(n):
            value = values[i] + bias
            cdf = half * (one + math.erf(value * inv_sqrt_2))  # of the normal distribution
            values[i] = value * cdf
            slope[i] = cdf + value * (exp(-half * value * value) * inv_sqrt_2pi)


def _undo_activation(
    act,  # which activation function, one of CODES
    d,  # (n,), dpost; becomes the gradient with respect to the pre-activations
    post,  # (n,)
    slope,  # (n,) for gelu and the dense route of topk, else empty
    first,  # of the numbers to do
    stop,  # the one after the last
):
    """Multiply by the slope, which is made from ``post`` alone where that can be."""
    zero, two = d.dtype.type(0), d.dtype.type(2)
    if act == RELU:  # post = max(pre, 0)
        for i in range(first, stop):
            d[i] = d[i] if post[i] > zero else zero
    elif act == RELU2:  # post = max(pre, 0)**2
        for i in range(first, stop):
            d[i] = d[i] * (two * np.sqrt(post[i])) if post[i] > zero else zero
    elif act == LEAKY_RELU:  # post = pre if pre > 0 else LEAK * pre
        leak = d.dtype.type(LEAK)
        for i in range(first, stop):
            d[i] = d[i] if post[i] > zero else leak * d[i]
    elif slope.size:
        for i in range(first, stop):
            d[i] *= slope[i]
    # else the list of topk, all of which was kept as it was


def _add_penalty(
    l1,  # weight of one activation
    d,  # (n,), dpost
    post,  # (n,)
    first,  # of the numbers to do
    stop,  # the one after the last
):
    """Add the derivative of ``l1 * abs(post)``: ``l1`` with the sign of ``post``.

    At 0 it is 0, and at a NaN it is NaN.
    """
    zero = d.dtype.type(0)
    for i in range(first, stop):
        d[i] += l1 if post[i] > zero else -l1 if post[i] < zero else post[i]


activate, undo_activation = part(_activate), part(_undo_activation)
add_penalty = part(_add_penalty)
