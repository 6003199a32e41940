"""The ReLU MLP while many units are on: six matrix products, and nothing between them.

Reference: ``minirelu.model.mlp``. ``post`` is kept block by block, unit-major: row ``b`` of
an array (blocks, F * BLOCK) holds the (F, tokens) values of token block b. A tile of it is made by
one small product, gets bias and ReLU while it is still in the cache, and goes straight into the
product with ``W_out``.

The one for few units is ``sparse_mlp.py``, and ``mlp_route.py`` chooses.
"""

from __future__ import annotations

import numpy as np

from minirelu.kernels.compiling import BLOCK, TILE, parallel


def _dense_forward(block, x, W_in, b_in, W_out, y, post, scratch):
    # -, (N, C), (F, C), (F,), (F, C), (N, C), (blocks, F * BLOCK), (BLOCK * C,)
    """Add what the MLP writes, but for ``b_out``, to ``y``, and fill ``post``."""
    N, C = x.shape
    F = W_in.shape[0]
    zero = x.dtype.type(0)
    lo, hi = block * BLOCK, min(N, (block + 1) * BLOCK)
    n = hi - lo
    yb, more = y[lo:hi], scratch[: n * C].reshape(n, C)
    for first in range(0, F, TILE):
        stop = min(F, first + TILE)
        tile = post[block, first * n : stop * n].reshape(stop - first, n)  # unit, token
        np.dot(W_in[first:stop], x[lo:hi].T, tile)
        for j in range(stop - first):
            bias = b_in[first + j]
            for t in range(n):
                value = tile[j, t] + bias
                # written so that a NaN, for which every comparison is false, stays one
                tile[j, t] = zero if value <= zero else value
        np.dot(tile.T, W_out[first:stop], more)
        for t in range(n):
            for c in range(C):
                yb[t, c] += more[t, c]


def _units_times_tokens(i, units, x, out, scratch):
    # -, (blocks, F * BLOCK), (N, C), (F, C), (TILE * C,)
    """``out = units @ x`` over all tokens; a piece is tile i of the units."""
    N, C = x.shape
    first, stop = i * TILE, min(out.shape[0], (i + 1) * TILE)
    outs, more = out[first:stop], scratch[: (stop - first) * C].reshape(stop - first, C)
    for block in range(units.shape[0]):
        lo, hi = block * BLOCK, min(N, (block + 1) * BLOCK)
        n = hi - lo
        part = units[block, first * n : stop * n].reshape(stop - first, n)
        if block == 0:
            np.dot(part, x[lo:hi], outs)
        else:
            np.dot(part, x[lo:hi], more)
            for j in range(stop - first):
                for c in range(C):
                    outs[j, c] += more[j, c]


def _dense_backward(block, dy, W_in, W_out, post, dx, db_part, scratch):
    # -, (N, C), (F, C), (F, C), (blocks, F * BLOCK), (N, C), (blocks, F), (BLOCK * (C + TILE),)
    """Fill dx and the parts of the gradient of ``b_in``; ``post`` becomes the gradient of pre."""
    N, C = dy.shape
    F = W_in.shape[0]
    zero = dy.dtype.type(0)
    lo, hi = block * BLOCK, min(N, (block + 1) * BLOCK)
    n = hi - lo
    dxb, more = dx[lo:hi], scratch[: n * C].reshape(n, C)
    for t in range(n):
        for c in range(C):
            dxb[t, c] = zero
    for first in range(0, F, TILE):
        stop = min(F, first + TILE)
        tile = post[block, first * n : stop * n].reshape(stop - first, n)
        dpost = scratch[n * C : n * C + (stop - first) * n].reshape(stop - first, n)
        np.dot(W_out[first:stop], dy[lo:hi].T, dpost)  # y = post @ W_out, by post
        for j in range(stop - first):
            db = zero
            for t in range(n):
                d = dpost[j, t] if tile[j, t] > zero else zero  # post = max(pre, 0)
                tile[j, t] = d
                db += d
            db_part[block, first + j] = db  # pre = x @ W_in.T + b_in, by b_in
        np.dot(tile.T, W_in[first:stop], more)  # ... by x
        for t in range(n):
            for c in range(C):
                dxb[t, c] += more[t, c]


dense_forward_kernel = parallel(_dense_forward)
units_times_tokens = parallel(_units_times_tokens)
dense_backward_kernel = parallel(_dense_backward)
