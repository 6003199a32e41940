"""The dense MLP with fused passes: bias and ReLU in one, and the backward of both in one.

Same functions, arguments and results as ``minirelu.model.relu_mlp``, the reference. The three
products of each direction are BLAS; what NumPy does between them in three passes over (N, F)
numbers is one pass here, in place.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from minirelu.model.relu_mlp import Saved

# Rows that one thread takes at a time. A fixed number, so that the bias gradient is added up in
# the same order whatever the number of threads.
BLOCK = 64


def _bias_relu(pre, b, post):  # (N, F), (F,), (N, F)
    """Compute ``pre += b; post = max(pre, 0)``; ``post`` may be ``pre`` itself."""
    N, F = pre.shape
    for n in prange(N):
        for j in range(F):
            value = pre[n, j] + b[j]
            pre[n, j] = value
            # written so that a NaN, for which every comparison is false, stays one
            post[n, j] = 0 if value <= 0 else value


def _bias_relu_backward(dpost, post, partial):  # (N, F), (N, F), (blocks, F)
    """Zero ``dpost`` where the unit was off, in place, and add up its columns block by block."""
    N, F = post.shape
    zero = dpost.dtype.type(0)
    for block in prange(partial.shape[0]):
        db = partial[block]
        for n in range(block * BLOCK, min(N, (block + 1) * BLOCK)):
            for j in range(F):
                d = dpost[n, j] if post[n, j] > 0 else zero
                dpost[n, j] = d
                db[j] += d


bias_relu = njit(parallel=True, cache=True)(_bias_relu)
bias_relu_backward = njit(parallel=True, cache=True)(_bias_relu_backward)


def relu_mlp_forward(
    x: np.ndarray,
    W_in: np.ndarray,
    b_in: np.ndarray | None,
    W_out: np.ndarray,
    b_out: np.ndarray | None,
    keep_pre: bool = False,
) -> tuple[np.ndarray, Saved]:
    """See :func:`minirelu.model.relu_mlp.relu_mlp_forward`.

    >>> W_in, W_out = np.array([[1.0], [-1.0]]), np.array([[10.0], [20.0]])
    >>> relu_mlp_forward(np.array([[3.0]]), W_in, None, W_out, None)[0]
    array([[30.]])
    """
    pre = x @ W_in.T  # (N, F)
    post = np.empty_like(pre) if keep_pre else pre
    bias_relu(pre, np.zeros(W_in.shape[0], x.dtype) if b_in is None else b_in, post)
    y = post @ W_out  # (N, C)
    if b_out is not None:
        y += b_out
    return y, (x, pre if keep_pre else None, post)


def relu_mlp_backward(
    dy: np.ndarray, W_in: np.ndarray, W_out: np.ndarray, saved: Saved
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """See :func:`minirelu.model.relu_mlp.relu_mlp_backward`.

    >>> W_in, W_out = np.array([[1.0], [-1.0]]), np.array([[10.0], [20.0]])
    >>> y, saved = relu_mlp_forward(np.array([[3.0]]), W_in, None, W_out, None)
    >>> relu_mlp_backward(np.ones((1, 1)), W_in, W_out, saved)[1].T
    array([[30.,  0.]])
    """
    x, _, post = saved
    dpre = dy @ W_out.T  # (N, F): dpost first, made dpre in place
    db_in_parts = np.zeros((-(-dpre.shape[0] // BLOCK), dpre.shape[1]), dy.dtype)
    dW_out = post.T @ dy  # y = post @ W_out + b_out, by W_out
    db_out = dy.sum(axis=0)  # ... by b_out
    bias_relu_backward(dpre, post, db_in_parts)  # post = max(x @ W_in.T + b_in, 0)
    db_in = db_in_parts.sum(axis=0)  # ... by b_in
    dx = dpre @ W_in  # ... by x
    dW_in = dpre.T @ x  # ... by W_in
    return dx, dW_in, db_in, dW_out, db_out
