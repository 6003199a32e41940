"""Layer norm (Ba, Kiros & Hinton 2016): each token's vector to mean 0 and variance 1."""

from __future__ import annotations

import numpy as np

from minirelu.model.hooks import Hook, as_it_is

Saved = tuple[np.ndarray, np.ndarray, np.ndarray]


def layernorm_forward(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None,
    eps: float = 1e-5,
    hook: Hook = as_it_is,
) -> tuple[np.ndarray, Saved]:
    """Normalise over the last axis, then apply a gain and a bias.

    Parameters
    ----------
    x : ndarray, (..., C)
    w : ndarray, (C,)
    b : ndarray, (C,), or None
    eps : float
        keeps the scale of a constant vector above 0.
    hook : callable
        called with ``hook_scale`` and ``hook_normalized``.

    Returns
    -------
    y : ndarray, (..., C)
    saved : (x, std, scale)
        what the backward needs; ``std`` is sqrt(variance + eps), (..., 1), and ``scale`` what was
        divided by: the same, unless the hook has replaced it.

    Examples
    --------
    >>> y, (x, std, scale) = layernorm_forward(np.array([1.0, 3.0]), np.ones(2), None, eps=1e-12)
    >>> y.round(6), scale.round(6)
    (array([-1.,  1.]), array([1.]))
    """
    centred = x - x.mean(axis=-1, keepdims=True)  # (..., C)
    variance = np.mean(centred * centred, axis=-1, keepdims=True)  # (..., 1)
    std = np.sqrt(variance + eps)  # (..., 1)
    scale = hook("hook_scale", std)
    y = centred / scale * w  # (..., C)
    if b is not None:
        y += b
    return hook("hook_normalized", y), (x, std, scale)


def layernorm_backward(
    dy: np.ndarray, w: np.ndarray, saved: Saved, hook: Hook = as_it_is
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Backward of :func:`layernorm_forward`.

    Parameters
    ----------
    dy : ndarray, (..., C)
    w : ndarray, (C,)
    saved : (x, std, scale), from the forward
    hook : callable
        called with the gradients with respect to ``hook_normalized`` and ``hook_scale``.

    Returns
    -------
    dx : ndarray, (..., C)
    dw, db : ndarray, (C,) each

    Examples
    --------
    A constant added to every entry of x changes nothing, so the entries of dx add up to 0:

    >>> y, saved = layernorm_forward(np.array([1.0, 3.0, 4.0]), np.ones(3), None)
    >>> dx, dw, db = layernorm_backward(np.array([1.0, 0.0, 0.0]), np.ones(3), saved)
    >>> bool(abs(dx.sum()) < 1e-12)
    True
    """
    x, std, scale = saved
    C = x.shape[-1]
    centred = x - x.mean(axis=-1, keepdims=True)  # (..., C); cheaper than storing it
    normal = centred / scale  # (..., C)

    dy = hook("hook_normalized", dy)
    dw = (dy * normal).reshape(-1, C).sum(axis=0)  # y = normal * w + b, with respect to w
    db = dy.reshape(-1, C).sum(axis=0)  # ... with respect to b
    dnormal = dy * w  # ... with respect to normal
    # normal = centred / scale: x acts through both
    dcentred = dnormal / scale  # (..., C)
    dscale = -(dnormal * normal).sum(axis=-1, keepdims=True) / scale  # (..., 1)
    dstd = hook("hook_scale", dscale)
    dcentred += centred * (dstd / (C * std))  # std = sqrt(mean(centred**2) + eps)
    dx = dcentred - dcentred.mean(axis=-1, keepdims=True)  # centred = x - mean(x)
    return dx, dw, db
