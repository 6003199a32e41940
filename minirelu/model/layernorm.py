"""Layer norm (Ba, Kiros & Hinton 2016): each token's vector to mean 0 and variance 1."""

from __future__ import annotations

import numpy as np

Saved = tuple[np.ndarray, np.ndarray]


def layernorm_forward(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | None, eps: float = 1e-5
) -> tuple[np.ndarray, Saved]:
    """Normalise over the last axis, then apply a gain and a bias.

    Parameters
    ----------
    x : ndarray, (..., C)
    w : ndarray, (C,)
    b : ndarray, (C,), or None for none
    eps : float
        keeps the scale of a constant vector above 0.

    Returns
    -------
    y : ndarray, (..., C)
    saved : (x, scale)
        what the backward needs; ``scale`` is sqrt(variance + eps), (..., 1).

    Examples
    --------
    >>> y, (x, scale) = layernorm_forward(np.array([1.0, 3.0]), np.ones(2), None, eps=1e-12)
    >>> y.round(6), scale.round(6)
    (array([-1.,  1.]), array([1.]))
    """
    centred = x - x.mean(axis=-1, keepdims=True)  # (..., C)
    variance = np.mean(centred * centred, axis=-1, keepdims=True)  # (..., 1)
    scale = np.sqrt(variance + eps)  # (..., 1)
    y = centred / scale * w  # (..., C)
    if b is not None:
        y += b
    return y, (x, scale)


def layernorm_backward(
    dy: np.ndarray, w: np.ndarray, saved: Saved
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Backward of :func:`layernorm_forward`.

    Parameters
    ----------
    dy : ndarray, (..., C)
    w : ndarray, (C,)
    saved : (x, scale), from the forward

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
    x, scale = saved
    C = x.shape[-1]
    normal = (x - x.mean(axis=-1, keepdims=True)) / scale  # (..., C); cheaper than storing it

    dw = (dy * normal).reshape(-1, C).sum(axis=0)  # y = normal * w + b, by w
    db = dy.reshape(-1, C).sum(axis=0)  # ... by b
    dnormal = dy * w  # ... by normal

    # normal = (x - mean(x)) / scale(x). Through `scale`, x also acts along `normal` itself;
    # through `mean`, along the constant vector. Both parts are taken out of dnormal.
    along_normal = normal * np.mean(dnormal * normal, axis=-1, keepdims=True)  # (..., C)
    along_ones = dnormal.mean(axis=-1, keepdims=True)  # (..., 1)
    dx = (dnormal - along_normal - along_ones) / scale  # (..., C)
    return dx, dw, db
