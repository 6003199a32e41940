"""``y = x @ W + b`` by blocks of tokens. Reference: ``project`` in ``minirelu.model.attention``."""

from __future__ import annotations

import numpy as np
from numba import prange

from minirelu.kernels.compiling import BLOCK, parallel


def _linear_forward(x, W, b, y):  # (N, I), (I, O), (O,), (N, O)
    N, O = y.shape
    for block in prange((N + BLOCK - 1) // BLOCK):
        lo, hi = block * BLOCK, min(N, (block + 1) * BLOCK)
        np.dot(x[lo:hi], W, y[lo:hi])
        for n in range(lo, hi):
            for o in range(O):
                y[n, o] += b[o]


def _linear_backward(dy, x, W, dx, scratch, dW_part, db_part):
    # (N, O), (N, I), (I, O), (N, I), (N, I), (blocks, I, O), (blocks, O)
    """Add the gradient of x to ``dx``; the parts get those of W and b, block by block."""
    N, I = x.shape
    for block in prange(dW_part.shape[0]):
        lo, hi = block * BLOCK, min(N, (block + 1) * BLOCK)
        np.dot(dy[lo:hi], W.T, scratch[lo:hi])  # y = x @ W + b, by x
        np.dot(x[lo:hi].T, dy[lo:hi], dW_part[block])  # ... by W
        db = db_part[block]  # ... by b
        for o in range(db.size):
            db[o] = 0
        for n in range(lo, hi):
            for i in range(I):
                dx[n, i] += scratch[n, i]
            for o in range(db.size):
                db[o] += dy[n, o]


linear_forward_kernel = parallel(_linear_forward)
linear_backward_kernel = parallel(_linear_backward)
