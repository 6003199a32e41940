"""The ReLU MLP while many units are on: six matrix products, and nothing between them.

Reference: ``minirelu.model.relu_mlp``. ``post`` is kept block by block, unit-major: row ``b`` of
an array (blocks, F * BLOCK) holds the (F, tokens) values of token block b. A tile of it is made by
one small product, gets bias and ReLU while it is still in the cache, and goes straight into the
product with ``W_out``.

The one for few units is ``sparse_relu_mlp.py``, and ``mlp_route.py`` chooses.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minirelu.kernels.compiling import BLOCK, TILE, parallel


def _dense_forward(x, W_in, b_in, W_out, y, post, scratch):
    # (N, C), (F, C), (F,), (F, C), (N, C), (blocks, F * BLOCK), (N, C)
    """Add what the MLP writes, but for ``b_out``, to ``y``, and fill ``post``."""
    N, C = x.shape
    F = W_in.shape[0]
    zero = x.dtype.type(0)
    for block in prange(post.shape[0]):
        lo, hi = block * BLOCK, min(N, (block + 1) * BLOCK)
        n = hi - lo
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
            np.dot(tile.T, W_out[first:stop], scratch[lo:hi])
            for t in range(lo, hi):
                for c in range(C):
                    y[t, c] += scratch[t, c]


def _units_times_tokens(units, x, scratch, out):  # (blocks, F * BLOCK), (N, C), (F, C), (F, C)
    """``out = units @ x`` over all tokens; a thread takes a tile of units."""
    N, C = x.shape
    F = out.shape[0]
    for tile in prange((F + TILE - 1) // TILE):
        first, stop = tile * TILE, min(F, (tile + 1) * TILE)
        for block in range(units.shape[0]):
            lo, hi = block * BLOCK, min(N, (block + 1) * BLOCK)
            n = hi - lo
            part = units[block, first * n : stop * n].reshape(stop - first, n)
            if block == 0:
                np.dot(part, x[lo:hi], out[first:stop])
            else:
                np.dot(part, x[lo:hi], scratch[first:stop])
                for j in range(first, stop):
                    for c in range(C):
                        out[j, c] += scratch[j, c]


def _dense_backward(dy, W_in, W_out, post, dx, db_part, scratch, tiles):
    # (N, C), (F, C), (F, C), (blocks, F * BLOCK), (N, C), (blocks, F), (N, C), (blocks, TILE*BLOCK)
    """Fill dx and the parts of the gradient of ``b_in``; ``post`` becomes the gradient of pre."""
    N, C = dy.shape
    F = W_in.shape[0]
    zero = dy.dtype.type(0)
    for block in prange(post.shape[0]):
        lo, hi = block * BLOCK, min(N, (block + 1) * BLOCK)
        n = hi - lo
        for t in range(lo, hi):
            for c in range(C):
                dx[t, c] = zero
        for first in range(0, F, TILE):
            stop = min(F, first + TILE)
            tile = post[block, first * n : stop * n].reshape(stop - first, n)
            dpost = tiles[block, : (stop - first) * n].reshape(stop - first, n)
            np.dot(W_out[first:stop], dy[lo:hi].T, dpost)  # y = post @ W_out, by post
            for j in range(stop - first):
                db = zero
                for t in range(n):
                    d = dpost[j, t] if tile[j, t] > zero else zero  # post = max(pre, 0)
                    tile[j, t] = d
                    db += d
                db_part[block, first + j] = db  # pre = x @ W_in.T + b_in, by b_in
            np.dot(tile.T, W_in[first:stop], scratch[lo:hi])  # ... by x
            for t in range(lo, hi):
                for c in range(C):
                    dx[t, c] += scratch[t, c]


def _count_positions(post, T, on):  # (blocks, F * BLOCK), -, (B, F) int32
    """Add up, for each sequence of T tokens and each unit, the positions at which it is on."""
    N, F = on.shape[0] * T, on.shape[1]
    for tile in prange((F + TILE - 1) // TILE):
        for block in range(post.shape[0]):
            lo, hi = block * BLOCK, min(N, (block + 1) * BLOCK)
            n = hi - lo
            for j in range(tile * TILE, min(F, (tile + 1) * TILE)):
                t = lo
                while t < hi:  # a block may hold parts of several sequences
                    stop = min(hi, (t // T + 1) * T)
                    count = 0
                    for i in range(j * n + t - lo, j * n + stop - lo):
                        count += post[block, i] > 0
                    on[t // T, j] += count
                    t = stop


dense_forward_kernel = parallel(_dense_forward)
units_times_tokens = parallel(_units_times_tokens)
dense_backward_kernel = parallel(_dense_backward)
count_positions = parallel(_count_positions)
