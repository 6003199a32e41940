"""The k largest pre-activations of each token, as the list that ``sparse_mlp.py`` walks.

Reference: ``topk_forward`` in ``minirelu.model.activation_functions``. Which ones they are is known
when all units of a token have been seen, so this comes before either route: the sparse one goes on
from the list, and the dense one from the arrays that the list fills.
"""

from __future__ import annotations

import numpy as np

from minirelu.kernels.compiling import BLOCK, parallel


def _list_largest(
    b,  # which block of tokens
    k,  # how many units are kept at each token
    x,  # (N, C)
    W_in,  # (F, C)
    b_in,  # (F,)
    start,  # (blocks, F + 1)
    token,  # (blocks, F * BLOCK + 1)
    value,  # (blocks, F * BLOCK + 1)
    scratch,  # (F * BLOCK,)
):
    """List the pairs that are kept in block b: ties go to the first; a NaN is the largest."""
    N, F = x.shape[0], W_in.shape[0]
    lo, hi = b * BLOCK, min(N, (b + 1) * BLOCK)
    n = hi - lo
    starts, tokens, values = start[b], token[b], value[b]
    pre, kept = scratch[: n * F].reshape(n, F), np.zeros((n, F), np.uint8)
    np.dot(x[lo:hi], W_in.T, pre)
    for t in range(n):
        row = pre[t]
        for j in range(F):
            row[j] += b_in[j]
        smallest, room = np.partition(row, F - k)[F - k], k
        for j in range(F):
            above = not row[j] <= smallest  # true for a NaN
            kept[t, j] = above
            room -= above
        for j in range(F):
            if room > 0 and row[j] == smallest:
                kept[t, j] = True
                room -= 1

    for j in range(F + 1):
        starts[j] = 0
    for t in range(n):
        for j in range(F):
            starts[j + 1] += kept[t, j]
    for j in range(F):
        starts[j + 1] += starts[j]
    place = starts.copy()
    for t in range(n):
        for j in range(F):
            if kept[t, j]:
                tokens[place[j]] = t
                values[place[j]] = pre[t, j]
                place[j] += 1


def _spread_list(
    b,  # which block of tokens
    N,  # tokens in all
    start,  # (blocks, F + 1)
    token,  # (blocks, F * BLOCK + 1)
    value,  # (blocks, F * BLOCK + 1)
    post,  # (blocks, F * BLOCK + 1)
    slope,  # (blocks, F * BLOCK + 1)
):
    """Fill ``post`` and ``slope``, unit by unit: the values and 1 where they are listed, else 0."""
    F, n = start.shape[1] - 1, min(BLOCK, N - b * BLOCK)
    for i in range(F * n):
        post[b, i] = 0
        slope[b, i] = 0
    for j in range(F):
        for p in range(start[b, j], start[b, j + 1]):
            post[b, j * n + token[b, p]] = value[b, p]
            slope[b, j * n + token[b, p]] = 1


list_largest = parallel(_list_largest)
spread_list = parallel(_spread_list)
