"""A linear map of the last axis: queries, keys, values, and what a head or a unit writes."""

from __future__ import annotations

import numpy as np


def linear_forward(x: np.ndarray, W: np.ndarray, b: np.ndarray | None) -> np.ndarray:
    """Apply ``x @ W + b`` to the last axis; one large product is faster than B small ones.

    Parameters
    ----------
    x : ndarray, (..., I)
    W : ndarray, (I, O)
    b : ndarray, (O,), or None

    Returns
    -------
    y : ndarray, (..., O)

    Examples
    --------
    >>> linear_forward(np.array([[1.0, 2.0]]), np.eye(2), np.array([0.5, 0.5]))
    array([[1.5, 2.5]])
    """
    y = (x.reshape(-1, x.shape[-1]) @ W).reshape(*x.shape[:-1], -1)
    if b is not None:
        y += b
    return y


def linear_backward(
    dy: np.ndarray, x: np.ndarray, W: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Backward of :func:`linear_forward`.

    Parameters
    ----------
    dy : ndarray, (..., O)
    x : ndarray, (..., I)
    W : ndarray, (I, O)

    Returns
    -------
    dx : ndarray, (..., I)
    dW : ndarray, (I, O)
    db : ndarray, (O,)

    Examples
    --------
    >>> dx, dW, db = linear_backward(np.ones((1, 1)), np.array([[3.0]]), np.array([[2.0]]))
    >>> dx, dW, db
    (array([[2.]]), array([[3.]]), array([1.]))
    """
    flat_dy, flat_x = dy.reshape(-1, dy.shape[-1]), x.reshape(-1, x.shape[-1])  # (N, O), (N, I)
    dx = (flat_dy @ W.T).reshape(x.shape)  # y = x @ W + b, with respect to x
    dW = flat_x.T @ flat_dy  # ... with respect to W
    db = flat_dy.sum(axis=0)  # ... with respect to b
    return dx, dW, db
