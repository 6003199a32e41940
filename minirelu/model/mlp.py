"""The ReLU MLP: F detectors, one per row. This is the reference; ``kernels`` has the fast one.

Hidden unit j looks along row j of ``W_in`` and, when what it sees is above ``-b_in[j]``, writes
row j of ``W_out``. Where it is off its output is exactly 0, which is all that this project is
about.
"""

from __future__ import annotations

import numpy as np

# The input, hidden units before the ReLU (the backward does not need them), and after it.
Saved = tuple[np.ndarray, "np.ndarray | None", np.ndarray]


def mlp_forward(
    x: np.ndarray,
    W_in: np.ndarray,
    b_in: np.ndarray | None,
    W_out: np.ndarray,
    b_out: np.ndarray | None,
) -> tuple[np.ndarray, Saved]:
    """Compute ``relu(x @ W_in.T + b_in) @ W_out + b_out``.

    Parameters
    ----------
    x : ndarray, (N, C)
    W_in, W_out : ndarray, (F, C) each: unit-major
    b_in : ndarray, (F,), or None
    b_out : ndarray, (C,), or None

    Returns
    -------
    y : ndarray, (N, C)
    saved : (x, pre, post)
        ``pre`` and ``post`` are (N, F).

    Examples
    --------
    >>> W_in, W_out = np.array([[1.0], [-1.0]]), np.array([[10.0], [20.0]])
    >>> y, (x, pre, post) = mlp_forward(np.array([[3.0]]), W_in, None, W_out, None)
    >>> post, y
    (array([[3., 0.]]), array([[30.]]))
    """
    pre = x @ W_in.T  # (N, F)
    if b_in is not None:
        pre += b_in
    post = np.maximum(pre, 0)  # (N, F); a NaN stays one
    y = post @ W_out  # (N, C)
    if b_out is not None:
        y += b_out
    return y, (x, pre, post)


def mlp_backward(
    dy: np.ndarray, W_in: np.ndarray, W_out: np.ndarray, saved: Saved
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Backward of :func:`mlp_forward`.

    Parameters
    ----------
    dy : ndarray, (N, C)
    W_in, W_out : ndarray, (F, C) each
    saved : (x, pre, post), from the forward; ``pre`` may be None

    Returns
    -------
    dx : ndarray, (N, C)
    dW_in : ndarray, (F, C)
    db_in : ndarray, (F,)
    dW_out : ndarray, (F, C)
    db_out : ndarray, (C,)

    Examples
    --------
    A unit that is off passes no gradient: its rows stay exactly 0.

    >>> W_in, W_out = np.array([[1.0], [-1.0]]), np.array([[10.0], [20.0]])
    >>> y, saved = mlp_forward(np.array([[3.0]]), W_in, None, W_out, None)
    >>> dx, dW_in, db_in, dW_out, db_out = mlp_backward(np.ones((1, 1)), W_in, W_out, saved)
    >>> dx, dW_in.T, dW_out.T
    (array([[10.]]), array([[30.,  0.]]), array([[3., 0.]]))
    """
    x, _, post = saved
    dpost = dy @ W_out.T  # y = post @ W_out + b_out, by post
    dW_out = post.T @ dy  # ... by W_out
    db_out = dy.sum(axis=0)  # ... by b_out
    dpre = np.where(post > 0, dpost, dpost.dtype.type(0))  # post = max(pre, 0)
    dx = dpre @ W_in  # pre = x @ W_in.T + b_in, by x
    dW_in = dpre.T @ x  # ... by W_in
    db_in = dpre.sum(axis=0)  # ... by b_in
    return dx, dW_in, db_in, dW_out, db_out
