"""Unembedding and cross-entropy in one sweep over the vocabulary, a block of tokens at a time.

Reference: ``unembedding_forward`` in ``minirelu.model.embedding``, and
``minirelu.model.cross_entropy``. Logits are made tile by tile, (vocabulary, tokens), and become
exponentials while the tile is in the cache; the largest logit so far is subtracted, and what was
subtracted is put right at the end (Milakov & Gimelshein 2018, *Online normalizer calculation for
softmax*).
"""

from __future__ import annotations

import numpy as np

from minirelu.kernels.compiling import BLOCK, TILE, parallel
from minirelu.kernels.exp import exp


def _loss_forward(
    block,  # which block of tokens
    x,  # (N, C)
    W_E,  # (V, C)
    targets,  # (N,)
    dlogits,  # (blocks, V * BLOCK)
    shift,  # (tiles of V, N)
    nats,  # (N,)
    scratch,  # (3 * BLOCK,)
):
    """Fill ``nats``, each token's loss; ``dlogits`` holds exponentials and ``shift`` their scale.

    exp(logit - shift) is what is stored; ``shift`` becomes the factor that makes it softmax.
    """
    N, V = x.shape[0], W_E.shape[0]
    lo, hi = block * BLOCK, min(N, (block + 1) * BLOCK)
    n = hi - lo
    largest, total, target = scratch[:n], scratch[n : 2 * n], scratch[2 * n : 3 * n]
    for t in range(n):
        largest[t] = -np.inf
        total[t] = 0
        target[t] = 0
    for i in range((V + TILE - 1) // TILE):
        first, stop = i * TILE, min(V, (i + 1) * TILE)
        tile = dlogits[block, first * n : stop * n].reshape(stop - first, n)
        np.dot(W_E[first:stop], x[lo:hi].T, tile)
        for t in range(n):
            if first <= targets[lo + t] < stop:
                target[t] = tile[targets[lo + t] - first, t]
        before = shift[i, lo:hi]
        for t in range(n):
            before[t] = largest[t]
        for v in range(stop - first):
            for t in range(n):
                largest[t] = tile[v, t] if tile[v, t] > largest[t] else largest[t]
        for t in range(n):
            total[t] *= exp(before[t] - largest[t])
            before[t] = largest[t]
        for v in range(stop - first):
            for t in range(n):
                tile[v, t] = exp(tile[v, t] - largest[t])
                total[t] += tile[v, t]
    for t in range(n):
        nats[lo + t] = np.log(total[t]) + largest[t] - target[t]
        for i in range(shift.shape[0]):
            shift[i, lo + t] = exp(shift[i, lo + t] - largest[t]) / total[t]


def _loss_backward(
    block,  # which block of tokens
    W_E,  # (V, C)
    targets,  # (N,)
    share,  # of each token in the loss
    dlogits,  # (blocks, V * BLOCK)
    shift,  # (tiles of V, N)
    dx,  # (N, C)
    scratch,  # (BLOCK * C,)
):
    """Make ``dlogits`` of the exponentials, and fill dx."""
    N, C = dx.shape
    V = W_E.shape[0]
    lo, hi = block * BLOCK, min(N, (block + 1) * BLOCK)
    n = hi - lo
    dxb, more = dx[lo:hi], scratch[: n * C].reshape(n, C)
    for t in range(n):
        for c in range(C):
            dxb[t, c] = 0
    for i in range((V + TILE - 1) // TILE):
        first, stop = i * TILE, min(V, (i + 1) * TILE)
        tile = dlogits[block, first * n : stop * n].reshape(stop - first, n)
        factor = shift[i, lo:hi]
        for t in range(n):
            factor[t] *= share
        for v in range(stop - first):
            for t in range(n):
                tile[v, t] *= factor[t]
        for t in range(n):  # nats = -log softmax(logits)[target]
            if first <= targets[lo + t] < stop:
                tile[targets[lo + t] - first, t] -= share
        np.dot(tile.T, W_E[first:stop], more)  # logits = x @ W_E.T, with respect to x
        for t in range(n):
            for c in range(C):
                dxb[t, c] += more[t, c]


loss_forward_kernel = parallel(_loss_forward)
loss_backward_kernel = parallel(_loss_backward)
