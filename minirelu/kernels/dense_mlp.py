"""The MLP while many units are on: six matrix products, and nothing between them.

Reference: ``minirelu.model.mlp``. ``post`` is kept block by block, unit-major: row ``b`` of
an array (blocks, F * BLOCK) holds the (F, tokens) values of token block b. A tile of it is made by
one small product, gets bias and activation function while it is still in the cache, and goes
straight into the product with ``W_out``.

The one for few units is ``sparse_mlp.py``, and ``mlp_route.py`` chooses.
"""

from __future__ import annotations

import numpy as np

from minirelu.kernels.activations import RELU, TOPK, activate, add_penalty, undo_activation
from minirelu.kernels.compiling import BLOCK, TILE, parallel


def _dense_forward(
    block,  # which block of tokens
    act,  # which activation function
    x,  # (N, C)
    W_in,  # (F, C)
    b_in,  # (F,)
    W_out,  # (F, C)
    y,  # (N, C)
    post,  # (blocks, F * BLOCK); of topk, made before
    slope,  # the same, of gelu; else (blocks, 0)
    scratch,  # (BLOCK * C,)
):
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
        if act != TOPK:
            np.dot(W_in[first:stop], x[lo:hi].T, tile)
            for j in range(stop - first):
                bias = b_in[first + j]
                if act == RELU:
                    for t in range(n):
                        value = tile[j, t] + bias
                        # written so that a NaN, for which every comparison is false, stays one
                        tile[j, t] = zero if value <= zero else value
                else:
                    unit = first + j
                    activate(act, tile[j], bias, slope[block, unit * n : (unit + 1) * n])
        np.dot(tile.T, W_out[first:stop], more)
        for t in range(n):
            for c in range(C):
                yb[t, c] += more[t, c]


def _units_times_tokens(
    i,  # which tile of the units
    units,  # (blocks, F * BLOCK)
    x,  # (N, C)
    out,  # (F, C)
    scratch,  # (TILE * C,)
):
    """``out = units @ x`` over all tokens."""
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


def _dense_backward(
    block,  # which block of tokens
    act,  # which activation function
    l1,  # penalty on one activation
    dy,  # (N, C)
    W_in,  # (F, C)
    W_out,  # (F, C)
    post,  # (blocks, F * BLOCK); becomes the gradient with respect to the pre-activations
    slope,  # the same, of gelu and topk; else (blocks, 0)
    dx,  # (N, C)
    db_part,  # (blocks, F)
    scratch,  # (BLOCK * (C + TILE),)
):
    """Fill dx and the parts of the gradient with respect to ``b_in``."""
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
        np.dot(W_out[first:stop], dy[lo:hi].T, dpost)  # y = post @ W_out, with respect to post
        for j in range(stop - first):
            if l1 > 0:
                add_penalty(l1, dpost[j], tile[j], 0, n)
            db = zero
            if act == RELU:  # post = max(pre, 0)
                for t in range(n):
                    d = dpost[j, t] if tile[j, t] > zero else zero
                    tile[j, t] = d
                    db += d
            else:
                unit = first + j
                slopes = slope[block, unit * n : (unit + 1) * n]
                undo_activation(act, dpost[j], tile[j], slopes, 0, n)
                for t in range(n):
                    tile[j, t] = dpost[j, t]
                    db += dpost[j, t]
            db_part[block, first + j] = db  # pre = x @ W_in.T + b_in, with respect to b_in
        np.dot(tile.T, W_in[first:stop], more)  # ... with respect to x
        for t in range(n):
            for c in range(C):
                dxb[t, c] += more[t, c]


dense_forward_kernel = parallel(_dense_forward)
units_times_tokens = parallel(_units_times_tokens)
dense_backward_kernel = parallel(_dense_backward)
