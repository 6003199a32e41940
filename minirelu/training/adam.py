"""Adam with decoupled weight decay (Kingma & Ba 2015, algorithm 1; Loshchilov & Hutter 2019)."""

from __future__ import annotations

import numpy as np

from minirelu.config import TrainConfig
from minirelu.model.parameters import Parameters


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
    """One update of a flat vector, in place. The reference; ``kernels.adam`` is used to train.

    Parameters
    ----------
    p, g, m, v : ndarray, (n,)
        parameters, gradient, and Adam's running means of the gradient and of its square.
    step : int
        1 for the first update: the means start at 0, and dividing by 1 - beta**step undoes that.
    lr, beta1, beta2, eps, decay : float
        ``decay`` acts on the parameters directly, not through the gradient.
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
    m_unbiased = m / (1 - beta1**step)
    v_unbiased = v / (1 - beta2**step)
    p -= lr * (m_unbiased / (np.sqrt(v_unbiased) + eps) + decay * p)


def update(
    params: Parameters,
    grads: Parameters,
    m: Parameters,
    v: Parameters,
    step: int,
    lr: float,
    config: TrainConfig,
    grad_norm: float,
) -> None:
    """Clip the gradient to ``config.clip_norm`` and take one step with the Numba kernel.

    Matrices decay, vectors (gains and biases) don't.

    Parameters
    ----------
    params, grads, m, v : Parameters
        ``params``, ``m`` and ``v`` change in place.
    step : int
        1 for the first.
    lr : float
    config : TrainConfig
    grad_norm : float
        global norm of ``grads``.
    """
    from minirelu.kernels import adam as kernel

    too_long = config.clip_norm and grad_norm > config.clip_norm
    g_scale = config.clip_norm / grad_norm if too_long else 1.0
    n = params.n_matrix
    for part, decay in ((slice(None, n), config.weight_decay), (slice(n, None), 0.0)):
        kernel.adam_step(
            params.flat[part],
            grads.flat[part],
            m.flat[part],
            v.flat[part],
            step,
            lr,
            config.beta1,
            config.beta2,
            config.adam_eps,
            decay,
            g_scale,
        )
