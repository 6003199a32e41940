"""Adam and the gradient's norm as single passes over the flat vectors."""

from __future__ import annotations

import math

import numpy as np

from minirelu.kernels.compiling import n_blocks, parallel

# Numbers that one thread takes at a time: fixed, so that the norm is added up in the same order
# whatever the number of threads.
BLOCK = 1 << 17


def _adam_step(
    block,  # which BLOCK of the parameters
    p,  # (n,), the parameters
    g,  # (n,)
    m,  # (n,)
    v,  # (n,)
    g_scale,  # what the gradient is multiplied by, to clip it
    lr,
    beta1,
    new1,  # 1 - beta1
    beta2,
    new2,  # 1 - beta2
    eps,
    decay,  # 0 for no weight decay
    correct1,  # 1 - beta1**step
    correct2,  # 1 - beta2**step
):
    """Update ``p, m, v`` in place; all scalars have the dtype of ``p``."""
    lo, hi = block * BLOCK, min(p.size, (block + 1) * BLOCK)
    p, g, m, v = p[lo:hi], g[lo:hi], m[lo:hi], v[lo:hi]
    for i in range(p.size):
        gi = g[i] * g_scale
        m[i] = beta1 * m[i] + new1 * gi
        v[i] = beta2 * v[i] + new2 * gi * gi
        step = m[i] / correct1 / (np.sqrt(v[i] / correct2) + eps)
        p[i] -= lr * (step + decay * p[i])


def _sums_of_squares(
    block,  # which BLOCK of the numbers
    g,  # (n,)
    partial,  # (blocks,) float64
):
    """Add up g*g in float64, so that no sum overflows or loses small terms."""
    g = g[block * BLOCK : (block + 1) * BLOCK]
    total = 0.0
    for i in range(g.size):
        x = np.float64(g[i])
        total += x * x
    partial[block] = total


adam_step_kernel = parallel(_adam_step)
sums_of_squares = parallel(_sums_of_squares)


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
    """See :func:`minirelu.training.optimizers.adam_step`, the reference.

    >>> p, g, m, v = np.ones(2), np.array([0.5, -2.0]), np.zeros(2), np.zeros(2)
    >>> adam_step(p, g, m, v, step=1, lr=0.1, beta1=0.9, beta2=0.99, eps=1e-8, decay=0.0)
    >>> p.round(6)
    array([0.9, 1.1])
    """
    # 1 - beta is taken here, in double precision: in float32 it would be 0 for a beta near 1
    betas = (beta1, 1 - beta1, beta2, 1 - beta2)
    scalars = (g_scale, lr, *betas, eps, decay, 1 - beta1**step, 1 - beta2**step)
    numbers = (p.dtype.type(s) for s in scalars)
    adam_step_kernel(n_blocks(p.size, BLOCK), p, g, m, v, *numbers)


def global_norm(g: np.ndarray) -> float:
    """Euclidean length of a flat vector; NaN or Inf if any number in it is.

    >>> global_norm(np.array([3.0, 4.0], dtype=np.float32))
    5.0
    """
    partial = np.zeros(n_blocks(g.size, BLOCK))
    sums_of_squares(partial.size, g, partial)
    return math.sqrt(partial.sum())
