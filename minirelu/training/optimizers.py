"""Optimizers: one update of a flat vector, in place; and the table of them.

A new one is a function here and a row in ``OPTIMIZERS``. What it remembers from step to step, its
slots, are vectors like the parameters; checkpoints, resuming and estimates follow from their names.
Weight decay acts on the parameters directly, not through the gradient (Loshchilov & Hutter 2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


def adam_step(
    p: np.ndarray,
    g: np.ndarray,
    m: np.ndarray,
    v: np.ndarray,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    decay: float,
    g_scale: float = 1.0,
) -> None:
    """Adam (Kingma & Ba 2015, algorithm 1) with decoupled decay. ``kernels.adam`` is the fast one.

    Parameters
    ----------
    p, g, m, v : ndarray, (n,)
        parameters, gradient, and Adam's running means of the gradient and of its square.
    step : int
        1 for the first update: the means start at 0, and dividing by 1 - beta**step undoes that.
    lr, beta1, beta2, eps, decay : float
    g_scale : float
        the gradient is multiplied by this first: clipping.

    Examples
    --------
    The first step has length ``lr`` in every direction, however large the gradient:

    >>> p, g, m, v = np.ones(2), np.array([0.5, -2.0]), np.zeros(2), np.zeros(2)
    >>> adam_step(p, g, m, v, step=1, lr=0.1, beta1=0.9, beta2=0.99, eps=1e-8, decay=0.0)
    >>> p.round(6)
    array([0.9, 1.1])
    """
    g = g * g_scale
    m[:] = beta1 * m + (1 - beta1) * g
    v[:] = beta2 * v + (1 - beta2) * g * g
    p -= lr * (adam_direction(m, v, step, beta1, beta2, eps) + decay * p)


def adam_direction(
    m: np.ndarray,
    v: np.ndarray,
    step: int | np.ndarray,
    beta1: float,
    beta2: float,
    eps: float,
) -> np.ndarray:
    """Where Adam's step leads: the mean over the root of the mean square, both unbiased."""
    m_unbiased = m / (1 - beta1**step)
    v_unbiased = v / (1 - beta2**step)
    return m_unbiased / (np.sqrt(v_unbiased) + eps)


def sgd_step(
    p: np.ndarray, g: np.ndarray, step: int, lr: float, decay: float, g_scale: float = 1.0
) -> None:
    """Gradient descent: the step is ``lr`` times the gradient. Parameters as for :func:`adam_step`.

    >>> p = np.ones(2)
    >>> sgd_step(p, np.array([0.5, -2.0]), step=1, lr=0.1, decay=0.0)
    >>> p
    array([0.95, 1.2 ])
    """
    p -= lr * (g * g_scale + decay * p)


def momentum_step(
    p: np.ndarray,
    g: np.ndarray,
    velocity: np.ndarray,
    step: int,
    lr: float,
    momentum: float,
    decay: float,
    g_scale: float = 1.0,
) -> None:
    """Gradient descent that keeps a share of its last direction (Polyak 1964; as in PyTorch).

    >>> p, velocity = np.ones(1), np.ones(1)
    >>> momentum_step(p, np.array([2.0]), velocity, step=2, lr=0.1, momentum=0.9, decay=0.0)
    >>> velocity, p.round(6)
    (array([2.9]), array([0.71]))
    """
    velocity[:] = momentum * velocity + g * g_scale
    p -= lr * (velocity + decay * p)


class Optimizer(NamedTuple):
    """A row of the table: the function, its slots, and its arguments that are settings."""

    step: Callable[..., None]
    slots: tuple[str, ...] = ()  # as arguments they follow p and g, in this order
    settings: dict[str, str] = {}  # argument to the field of TrainConfig that it gets


OPTIMIZERS = {
    "adamw": Optimizer(
        adam_step, ("m", "v"), {"beta1": "beta1", "beta2": "beta2", "eps": "adam_eps"}
    ),
    "sgd": Optimizer(sgd_step),
    "sgd_momentum": Optimizer(momentum_step, ("velocity",), {"momentum": "momentum"}),
}


def global_norm(g: np.ndarray) -> float:
    """Euclidean length of a flat vector, summed in float64; NaN or Inf if any number in it is.

    >>> global_norm(np.array([3.0, 4.0], dtype=np.float32))
    5.0
    """
    return math.sqrt(np.square(g, dtype=np.float64).sum())
