"""``y[k] = x @ W[k] + b[k]`` by blocks of tokens: queries, keys and values in one go.

Reference: ``project`` in ``minirelu.model.attention``.
"""

from __future__ import annotations

import numpy as np

from minirelu.kernels.compiling import BLOCK, parallel


def _linear_forward(
    block,  # which block of tokens
    x,  # (N, I)
    W,  # (K, I, O)
    b,  # (K, O)
    y,  # (K, N, O)
):
    K, N, O = y.shape
    lo, hi = block * BLOCK, min(N, (block + 1) * BLOCK)
    for k in range(K):
        yk = y[k, lo:hi]
        np.dot(x[lo:hi], W[k], yk)
        for n in range(hi - lo):
            for o in range(O):
                yk[n, o] += b[k, o]


def _linear_backward(
    block,  # which block of tokens
    dy,  # (K, N, O)
    x,  # (N, I)
    W,  # (K, I, O)
    dx,  # (N, I)
    dW_part,  # (blocks, K, I, O)
    db_part,  # (blocks, K, O)
    scratch,  # (BLOCK * I,)
):
    """Fill dx, the sum over all K; the parts get the gradients of W and b, block by block."""
    K, N, O = dy.shape
    I = x.shape[1]
    lo, hi = block * BLOCK, min(N, (block + 1) * BLOCK)
    n_tokens = hi - lo
    dxb, more = dx[lo:hi], scratch[: n_tokens * I].reshape(n_tokens, I)
    for k in range(K):
        dyk, db = dy[k, lo:hi], db_part[block, k]
        np.dot(x[lo:hi].T, dyk, dW_part[block, k])  # y = x @ W + b, with respect to W
        for o in range(O):  # ... with respect to b
            db[o] = 0
        for n in range(n_tokens):
            for o in range(O):
                db[o] += dyk[n, o]
        if k == 0:
            np.dot(dyk, W[k].T, dxb)  # ... with respect to x
        else:
            np.dot(dyk, W[k].T, more)
            for n in range(n_tokens):
                for i in range(I):
                    dxb[n, i] += more[n, i]


linear_forward_kernel = parallel(_linear_forward)
linear_backward_kernel = parallel(_linear_backward)
