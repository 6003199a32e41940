"""The ReLU MLP while few units are on: one matrix product, and then only what is on.

Reference: ``minirelu.model.relu_mlp``. Where unit j is off at a token, its output there is 0, and
so is everything that the backward would multiply with it. Of the six products of the two
directions only the first, which finds out who is on, has to visit every (token, unit) pair; the
other five walk a list of the pairs that are on. Nothing is left out that is not a zero: results
differ from the dense ones by rounding only.

One list serves all of them. It is kept for blocks of tokens, unit by unit: in block b, unit j is
on at the tokens ``token[b, start[b, j] : start[b, j + 1]]``, counted from the block's first one,
with the values ``value[b, ...]``. Unit-major, because row j of ``W_in`` and of ``W_out`` stays in
the nearest cache while all of its tokens are visited; a unit that is silent costs nothing.

Pairs are taken four at a time, so that what the four share is read once.

A weight or an incoming gradient that is not finite spoils in the reference also what it is
multiplied with by zero; here it does not reach it. A NaN among the pre-activations is never lost:
it counts as on.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minirelu.kernels.compiling import BLOCK, TILE, parallel

# Units of one thread's turn in the weights' gradients.
GROUP = 128


def _sparse_forward(x, W_in, b_in, W_out, y, start, token, value, tiles):
    # (N, C), (F, C), (F,), (F, C), (N, C), (blocks, F + 1), (blocks, F * BLOCK + 1) twice,
    # (blocks, TILE * BLOCK)
    """List the pairs that are on, and add what they write to ``y``."""
    N, C = x.shape
    F = W_in.shape[0]
    zero = x.dtype.type(0)
    for b in prange(start.shape[0]):
        lo, hi = b * BLOCK, min(N, (b + 1) * BLOCK)
        n = hi - lo
        q = 0
        for first in range(0, F, TILE):
            stop = min(F, first + TILE)
            pre = tiles[b, : (stop - first) * n].reshape(stop - first, n)  # unit, token
            np.dot(W_in[first:stop], x[lo:hi].T, pre)
            for j in range(first, stop):
                bias = b_in[j]
                start[b, j] = q
                for t in range(n):
                    v = pre[j - first, t] + bias
                    # always written, and overwritten by the next one if this is off: no branch
                    token[b, q] = t
                    value[b, q] = v
                    q += not v <= zero  # true for a NaN
            start[b, stop] = q

            for j in range(first, stop):  # y = post @ W_out
                p, end = start[b, j], start[b, j + 1]
                while p + 4 <= end:
                    t0, t1 = lo + token[b, p], lo + token[b, p + 1]
                    t2, t3 = lo + token[b, p + 2], lo + token[b, p + 3]
                    v0, v1, v2, v3 = value[b, p], value[b, p + 1], value[b, p + 2], value[b, p + 3]
                    for c in range(C):
                        w = W_out[j, c]
                        y[t0, c] += v0 * w
                        y[t1, c] += v1 * w
                        y[t2, c] += v2 * w
                        y[t3, c] += v3 * w
                    p += 4
                while p < end:
                    t, v = lo + token[b, p], value[b, p]
                    for c in range(C):
                        y[t, c] += v * W_out[j, c]
                    p += 1


def _sparse_backward_tokens(dy, W_in, W_out, start, token, value, dpre, dx):
    # (N, C), (F, C) twice, the list, (blocks, F * BLOCK + 1), (N, C)
    """Fill ``dpre``, beside ``value``, and dx; a thread takes a block of tokens."""
    N, C = dy.shape
    F = W_in.shape[0]
    zero = dy.dtype.type(0)
    for b in prange(start.shape[0]):
        lo, hi = b * BLOCK, min(N, (b + 1) * BLOCK)
        for t in range(lo, hi):
            for c in range(C):
                dx[t, c] = zero
        for j in range(F):
            p, end = start[b, j], start[b, j + 1]
            while p + 4 <= end:
                t0, t1 = lo + token[b, p], lo + token[b, p + 1]
                t2, t3 = lo + token[b, p + 2], lo + token[b, p + 3]
                d0, d1, d2, d3 = zero, zero, zero, zero
                for c in range(C):  # y = post @ W_out, by post
                    w = W_out[j, c]
                    d0 += dy[t0, c] * w
                    d1 += dy[t1, c] * w
                    d2 += dy[t2, c] * w
                    d3 += dy[t3, c] * w
                # post = max(pre, 0): whoever is listed is on, unless it is a NaN
                d0 = d0 if value[b, p] > zero else zero
                d1 = d1 if value[b, p + 1] > zero else zero
                d2 = d2 if value[b, p + 2] > zero else zero
                d3 = d3 if value[b, p + 3] > zero else zero
                dpre[b, p], dpre[b, p + 1], dpre[b, p + 2], dpre[b, p + 3] = d0, d1, d2, d3
                for c in range(C):  # pre = x @ W_in.T + b_in, by x
                    w = W_in[j, c]
                    dx[t0, c] += d0 * w
                    dx[t1, c] += d1 * w
                    dx[t2, c] += d2 * w
                    dx[t3, c] += d3 * w
                p += 4
            while p < end:
                t = lo + token[b, p]
                d = zero
                for c in range(C):
                    d += dy[t, c] * W_out[j, c]
                d = d if value[b, p] > zero else zero
                dpre[b, p] = d
                for c in range(C):
                    dx[t, c] += d * W_in[j, c]
                p += 1


def _sparse_backward_units(dy, x, start, token, value, dpre, dW_in, db_in, dW_out):
    # (N, C) twice, the list, (blocks, F * BLOCK + 1), (F, C), (F,), (F, C)
    """Fill the gradients of the weights; a thread takes a group of units, whole rows."""
    F, C = dW_in.shape
    zero = dy.dtype.type(0)
    for group in prange((F + GROUP - 1) // GROUP):
        first, stop = group * GROUP, min(F, (group + 1) * GROUP)
        for j in range(first, stop):
            db_in[j] = zero
            for c in range(C):
                dW_in[j, c] = zero
                dW_out[j, c] = zero
        for b in range(start.shape[0]):
            lo = b * BLOCK
            for j in range(first, stop):
                p, end = start[b, j], start[b, j + 1]
                while p + 4 <= end:
                    t0, t1 = lo + token[b, p], lo + token[b, p + 1]
                    t2, t3 = lo + token[b, p + 2], lo + token[b, p + 3]
                    v0, v1, v2, v3 = value[b, p], value[b, p + 1], value[b, p + 2], value[b, p + 3]
                    for c in range(C):  # y = post @ W_out, by W_out
                        dW_out[j, c] += (
                            v0 * dy[t0, c] + v1 * dy[t1, c] + v2 * dy[t2, c] + v3 * dy[t3, c]
                        )
                    d0, d1, d2, d3 = dpre[b, p], dpre[b, p + 1], dpre[b, p + 2], dpre[b, p + 3]
                    for c in range(C):  # pre = x @ W_in.T + b_in, by W_in
                        dW_in[j, c] += d0 * x[t0, c] + d1 * x[t1, c] + d2 * x[t2, c] + d3 * x[t3, c]
                    db_in[j] += d0 + d1 + d2 + d3  # ... by b_in
                    p += 4
                while p < end:
                    t, v, d = lo + token[b, p], value[b, p], dpre[b, p]
                    for c in range(C):
                        dW_out[j, c] += v * dy[t, c]
                        dW_in[j, c] += d * x[t, c]
                    db_in[j] += d
                    p += 1


def _count_listed_positions(start, token, value, T, on):  # the list, -, (B, F) int32
    """Add up, for each sequence of T tokens and each unit, the positions at which it is on."""
    F = on.shape[1]
    for group in prange((F + GROUP - 1) // GROUP):
        for b in range(start.shape[0]):
            for j in range(group * GROUP, min(F, (group + 1) * GROUP)):
                for p in range(start[b, j], start[b, j + 1]):
                    on[(b * BLOCK + token[b, p]) // T, j] += value[b, p] > 0


sparse_forward_kernel = parallel(_sparse_forward)
sparse_backward_tokens = parallel(_sparse_backward_tokens)
sparse_backward_units = parallel(_sparse_backward_units)
count_listed_positions = parallel(_count_listed_positions)
