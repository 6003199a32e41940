"""``y[k] = x @ W[k] + b[k]`` by blocks of tokens: queries, keys and values in one go.

Reference: ``project`` in ``minirelu.model.attention``.
"""

from __future__ import annotations

import numpy as np

from minirelu.kernels.compiling import BLOCK, parallel


def _linear_forward(block, x, W, b, y):  # -, (N, I), (K, I, O), (K, O), (K, N, O)
    K, N, O = y.shape
    lo, hi = block * BLOCK, min(N, (block + 1) * BLOCK)
    for k in range(K):
        yk = y[k, lo:hi]
        np.dot(x[lo:hi], W[k], yk)
        for n in range(hi - lo):
            for o in range(O):
                yk[n, o] += b[k, o]


def _linear_backward(block, dy, x, W, dx, dW_part, db_part, scratch):
    # -, (K, N, O), (N, I), (K, I, O), (N, I), (blocks, K, I, O), (blocks, K, O), (BLOCK * I,)
    """Fill dx, which all K have a part in; the parts get the gradients of W and b, by block."""
    K, N, O = dy.shape
    I = x.shape[1]
    lo, hi = block * BLOCK, min(N, (block + 1) * BLOCK)
    n_tokens = hi - lo
    dxb, more = dx[lo:hi], scratch[: n_tokens * I].reshape(n_tokens, I)
    for k in range(K):
        dyk, db = dy[k, lo:hi], db_part[block, k]
        np.dot(x[lo:hi].T, dyk, dW_part[block, k])  # y = x @ W + b, by W
        for o in range(O):  # ... by b
            db[o] = 0
        for n in range(n_tokens):
            for o in range(O):
                db[o] += dyk[n, o]
        if k == 0:
            np.dot(dyk, W[k].T, dxb)  # ... by x
        else:
            np.dot(dyk, W[k].T, more)
            for n in range(n_tokens):
                for i in range(I):
                    dxb[n, i] += more[n, i]


linear_forward_kernel = parallel(_linear_forward)
linear_backward_kernel = parallel(_linear_backward)
