"""The MLP while few units are on: one matrix product, and then only what is on.

Reference: ``minirelu.model.mlp``. Where unit j is off at a token, its output there is 0, and
so is everything that the backward would multiply by it. Of the six products of the two
directions only the first, which finds out who is on, has to visit every (token, unit) pair; the
other five walk a list of the pairs that are on. Nothing is left out that is not a zero: results
differ from the dense ones by rounding only.

One list serves all of them. It is kept for blocks of tokens, unit by unit: in block b, unit j is
on at the tokens ``token[b, start[b, j] : start[b, j + 1]]``, counted from the block's first one,
with the values ``value[b, ...]``. Unit-major, because row j of ``W_in`` and of ``W_out`` stays in
the nearest cache while all of its tokens are visited; a unit that is silent costs nothing.

Pairs are taken four at a time, so that what the four share is read once.

In the reference, a weight or an incoming gradient that is not finite also spoils what it multiplies
by zero (0 * inf is NaN); here that product is left out. A NaN among the pre-activations is never
lost: it counts as on.
"""

from __future__ import annotations

import numpy as np

from minirelu.kernels.activations import RELU2, TOPK, add_penalty, undo_activation
from minirelu.kernels.compiling import BLOCK, TILE, parallel

# Units of one piece in the weights' gradients.
GROUP = 128


def _sparse_forward(
    b,  # which block of tokens
    act,  # which activation function
    x,  # (N, C)
    W_in,  # (F, C)
    b_in,  # (F,)
    W_out,  # (F, C)
    y,  # (N, C)
    start,  # (blocks, F + 1); of topk, the list has been made before
    token,  # (blocks, F * BLOCK + 1)
    value,  # (blocks, F * BLOCK + 1)
    scratch,  # (TILE * BLOCK,)
):
    """List the pairs that are on in block b, and add what they write to ``y``."""
    N, C = x.shape
    F = W_in.shape[0]
    zero = x.dtype.type(0)
    lo, hi = b * BLOCK, min(N, (b + 1) * BLOCK)
    n = hi - lo
    yb, starts, tokens, values = y[lo:hi], start[b], token[b], value[b]
    on = np.zeros(BLOCK, np.uint8)
    eights = on.view(np.uint64)
    q = 0
    for first in range(0, F, TILE):
        stop = min(F, first + TILE)
        if act != TOPK:
            pre = scratch[: (stop - first) * n].reshape(stop - first, n)  # unit, token
            np.dot(W_in[first:stop], x[lo:hi].T, pre)
            for j in range(first, stop):
                bias = b_in[j]
                starts[j] = q
                row = pre[j - first]
                for t in range(n):
                    on[t] = not row[t] + bias <= zero  # true for a NaN
                for i in range(eights.size):
                    if eights[i] == 0:  # eight tokens, and none of them on
                        continue
                    for t in range(8 * i, min(n, 8 * i + 8)):
                        # always written, and overwritten by the next one if this is off: no branch
                        tokens[q] = t
                        values[q] = row[t] + bias
                        q += on[t]
            starts[stop] = q
            if act == RELU2:
                for p in range(starts[first], q):
                    values[p] *= values[p]

        for j in range(first, stop):  # y = post @ W_out
            p, end = starts[j], starts[j + 1]
            while p + 4 <= end:
                t0, t1, t2, t3 = tokens[p], tokens[p + 1], tokens[p + 2], tokens[p + 3]
                v0, v1, v2, v3 = values[p], values[p + 1], values[p + 2], values[p + 3]
                for c in range(C):
                    w = W_out[j, c]
                    yb[t0, c] += v0 * w
                    yb[t1, c] += v1 * w
                    yb[t2, c] += v2 * w
                    yb[t3, c] += v3 * w
                p += 4
            while p < end:
                t, v = tokens[p], values[p]
                for c in range(C):
                    yb[t, c] += v * W_out[j, c]
                p += 1


def _sparse_backward_tokens(
    b,  # which block of tokens
    act,  # which activation function
    l1,  # penalty on one activation
    dy,  # (N, C)
    W_in,  # (F, C)
    W_out,  # (F, C)
    start,  # (blocks, F + 1)
    token,  # (blocks, F * BLOCK + 1)
    value,  # (blocks, F * BLOCK + 1)
    dpre,  # (blocks, F * BLOCK + 1)
    dx,  # (N, C)
):
    """Fill ``dpre``, beside ``value``, and dx, of block b."""
    N, C = dy.shape
    F = W_in.shape[0]
    zero = dy.dtype.type(0)
    lo, hi = b * BLOCK, min(N, (b + 1) * BLOCK)
    dyb, dxb, starts, tokens = dy[lo:hi], dx[lo:hi], start[b], token[b]
    values, ds, no_slope = value[b], dpre[b], value[b, :0]
    for t in range(hi - lo):
        for c in range(C):
            dxb[t, c] = zero
    for j in range(F):
        p, end = starts[j], starts[j + 1]
        while p + 4 <= end:
            t0, t1, t2, t3 = tokens[p], tokens[p + 1], tokens[p + 2], tokens[p + 3]
            d0, d1, d2, d3 = zero, zero, zero, zero
            for c in range(C):  # y = post @ W_out, with respect to post
                w = W_out[j, c]
                d0 += dyb[t0, c] * w
                d1 += dyb[t1, c] * w
                d2 += dyb[t2, c] * w
                d3 += dyb[t3, c] * w
            ds[p], ds[p + 1], ds[p + 2], ds[p + 3] = d0, d1, d2, d3
            if l1 > 0:
                add_penalty(l1, ds, values, p, p + 4)
            undo_activation(act, ds, values, no_slope, p, p + 4)
            d0, d1, d2, d3 = ds[p], ds[p + 1], ds[p + 2], ds[p + 3]
            for c in range(C):  # pre = x @ W_in.T + b_in, with respect to x
                w = W_in[j, c]
                dxb[t0, c] += d0 * w
                dxb[t1, c] += d1 * w
                dxb[t2, c] += d2 * w
                dxb[t3, c] += d3 * w
            p += 4
        while p < end:
            t = tokens[p]
            d = zero
            for c in range(C):
                d += dyb[t, c] * W_out[j, c]
            ds[p] = d
            if l1 > 0:
                add_penalty(l1, ds, values, p, p + 1)
            undo_activation(act, ds, values, no_slope, p, p + 1)
            d = ds[p]
            for c in range(C):
                dxb[t, c] += d * W_in[j, c]
            p += 1


def _sparse_backward_units(
    group,  # which group of units
    dy,  # (N, C)
    x,  # (N, C)
    start,  # (blocks, F + 1)
    token,  # (blocks, F * BLOCK + 1)
    value,  # (blocks, F * BLOCK + 1)
    dpre,  # (blocks, F * BLOCK + 1)
    dW_in,  # (F, C)
    db_in,  # (F,)
    dW_out,  # (F, C)
):
    """Fill the gradients of the weights, whole rows, of a group of units."""
    N = dy.shape[0]
    F, C = dW_in.shape
    zero = dy.dtype.type(0)
    first, stop = group * GROUP, min(F, (group + 1) * GROUP)
    for j in range(first, stop):
        db_in[j] = zero
        for c in range(C):
            dW_in[j, c] = zero
            dW_out[j, c] = zero
    for b in range(start.shape[0]):
        lo, hi = b * BLOCK, min(N, (b + 1) * BLOCK)
        dyb, xb, tokens, values, ds = dy[lo:hi], x[lo:hi], token[b], value[b], dpre[b]
        for j in range(first, stop):
            p, end = start[b, j], start[b, j + 1]
            while p + 4 <= end:
                t0, t1, t2, t3 = tokens[p], tokens[p + 1], tokens[p + 2], tokens[p + 3]
                v0, v1, v2, v3 = values[p], values[p + 1], values[p + 2], values[p + 3]
                for c in range(C):  # y = post @ W_out, with respect to W_out
                    dW_out[j, c] += (
                        v0 * dyb[t0, c] + v1 * dyb[t1, c] + v2 * dyb[t2, c] + v3 * dyb[t3, c]
                    )
                d0, d1, d2, d3 = ds[p], ds[p + 1], ds[p + 2], ds[p + 3]
                for c in range(C):  # pre = x @ W_in.T + b_in, with respect to W_in
                    dW_in[j, c] += d0 * xb[t0, c] + d1 * xb[t1, c] + d2 * xb[t2, c] + d3 * xb[t3, c]
                db_in[j] += d0 + d1 + d2 + d3  # ... with respect to b_in
                p += 4
            while p < end:
                t, v, d = tokens[p], values[p], ds[p]
                for c in range(C):
                    dW_out[j, c] += v * dyb[t, c]
                    dW_in[j, c] += d * xb[t, c]
                db_in[j] += d
                p += 1


sparse_forward_kernel = parallel(_sparse_forward)
sparse_backward_tokens = parallel(_sparse_backward_tokens)
sparse_backward_units = parallel(_sparse_backward_units)
