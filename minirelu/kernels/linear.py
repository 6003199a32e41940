"""``y[k] = x @ W[k] + b[k]`` by blocks of tokens: queries, keys and values in one go.

Reference: ``project`` in ``minirelu.model.attention``.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minirelu.kernels.compiling import BLOCK, parallel


def _linear_forward(x, W, b, y):  # (N, I), (K, I, O), (K, O), (K, N, O)
    K, N, O = y.shape
    for block in prange((N + BLOCK - 1) // BLOCK):
        lo, hi = block * BLOCK, min(N, (block + 1) * BLOCK)
        for k in range(K):
            yk = y[k, lo:hi]
            np.dot(x[lo:hi], W[k], yk)
            for n in range(hi - lo):
                for o in range(O):
                    yk[n, o] += b[k, o]


def _linear_backward(dy, x, W, dx, scratch, dW_part, db_part):
    # (K, N, O), (N, I), (K, I, O), (N, I), (N, I), (blocks, K, I, O), (blocks, K, O)
    """Fill dx, which all K have a part in; the parts get the gradients of W and b, by block."""
    K, N, O = dy.shape
    I = x.shape[1]
    for block in prange(dW_part.shape[0]):
        lo, hi = block * BLOCK, min(N, (block + 1) * BLOCK)
        for k in range(K):
            dyk, db = dy[k, lo:hi], db_part[block, k]
            np.dot(x[lo:hi].T, dyk, dW_part[block, k])  # y = x @ W + b, by W
            for o in range(O):  # ... by b
                db[o] = 0
            for n in range(hi - lo):
                for o in range(O):
                    db[o] += dyk[n, o]
            if k == 0:
                np.dot(dyk, W[k].T, dx[lo:hi])  # ... by x
            else:
                np.dot(dyk, W[k].T, scratch[lo:hi])
                for n in range(lo, hi):
                    for i in range(I):
                        dx[n, i] += scratch[n, i]


linear_forward_kernel = parallel(_linear_forward)
linear_backward_kernel = parallel(_linear_backward)
