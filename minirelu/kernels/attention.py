"""Causal attention, head by head, without the half that the mask would throw away.

Reference: ``minirelu.model.attention``. The (B, H, T, T) pattern is never stored: queries come in
blocks of ``QUERIES``, each meets the keys up to its own end, and the backward makes the pattern
again from the logarithm of the softmax's denominator (the recomputation of Dao et al. 2022,
*FlashAttention*, section 3.1). Scores are kept (keys, queries), so that each step of the softmax
runs over many queries at once.
"""

from __future__ import annotations

import numpy as np

from minirelu.kernels.compiling import parallel, part
from minirelu.kernels.exp import exp

QUERIES = 64


def scratch_size(T: int, D: int) -> int:
    """Numbers that one thread needs beside its inputs and outputs.

    >>> scratch_size(256, 32)
    92288
    """
    return 7 * T * D + 2 * QUERIES + QUERIES * D + 2 * QUERIES * T


def _gather(
    a,  # (N, C)
    row,  # of a, the first to copy
    h,  # which head
    factor,
    rows,  # (n, D), filled
):
    n, D = rows.shape
    head = a[row : row + n, h * D : (h + 1) * D]
    for t in range(n):
        for d in range(D):
            rows[t, d] = head[t, d] * factor


def _scatter(
    rows,  # (n, D)
    factor,
    a,  # (N, C), of which one head's columns are filled
    row,  # of a, the first to fill
    h,  # which head
):
    n, D = rows.shape
    head = a[row : row + n, h * D : (h + 1) * D]
    for t in range(n):
        for d in range(D):
            head[t, d] = rows[t, d] * factor


def _add(
    total,  # (T, D)
    more,  # (T, D)
    n,  # how many rows
):
    for t in range(n):
        for d in range(total.shape[1]):
            total[t, d] += more[t, d]


def _hide_later_keys(
    scores,  # (keys, queries)
    first,  # position of the first query
):
    """The softmax makes 0 of -inf."""
    for key in range(first, scores.shape[0]):
        for j in range(key - first):
            scores[key, j] = -np.inf


gather = part(_gather)
hide_later_keys = part(_hide_later_keys)
scatter = part(_scatter)
add = part(_add)


def _attention_forward(
    i,  # which head of which sequence
    q,  # (N, C)
    k,  # (N, C)
    v,  # (N, C)
    z,  # (N, C)
    log_total,  # (B, H, T), the logarithm of the softmax's denominator
    s,  # (scratch_size,)
):
    """Fill ``z`` and ``log_total`` of one head of one sequence."""
    B, H, T = log_total.shape
    D = q.shape[1] // H
    one = q.dtype.type(1)
    b, h = i // H, i % H
    size = T * D
    qh = s[:size].reshape(T, D)
    kh = s[size : 2 * size].reshape(T, D)
    vh = s[2 * size : 3 * size].reshape(T, D)
    gather(q, b * T, h, one / np.sqrt(q.dtype.type(D)), qh)
    gather(k, b * T, h, one, kh)
    gather(v, b * T, h, one, vh)
    rest = s[3 * size :]
    largest, total = rest[:QUERIES], rest[QUERIES : 2 * QUERIES]
    rest = rest[2 * QUERIES :]

    for first in range(0, T, QUERIES):
        stop = min(T, first + QUERIES)
        n = stop - first  # queries of this block; they look at keys before `stop`
        zb = rest[: n * D].reshape(n, D)
        scores = rest[n * D : n * D + stop * n].reshape(stop, n)  # key, query
        np.dot(kh[:stop], qh[first:stop].T, scores)
        for j in range(n):
            largest[j] = -np.inf
            total[j] = 0
        hide_later_keys(scores, first)
        for key in range(stop):
            for j in range(n):
                largest[j] = scores[key, j] if scores[key, j] > largest[j] else largest[j]
        for key in range(stop):
            for j in range(n):
                scores[key, j] = exp(scores[key, j] - largest[j])
                total[j] += scores[key, j]
        np.dot(scores.T, vh[:stop], zb)
        for j in range(n):
            log_total[b, h, first + j] = largest[j] + np.log(total[j])
            for d in range(D):
                zb[j, d] /= total[j]
        scatter(zb, one, z, b * T + first, h)


def _attention_backward(
    i,  # which head of which sequence
    dz,  # (N, C)
    q,  # (N, C)
    k,  # (N, C)
    v,  # (N, C)
    z,  # (N, C)
    log_total,  # (B, H, T)
    dq,  # (N, C)
    dk,  # (N, C)
    dv,  # (N, C)
    s,  # (scratch_size,)
):
    """Fill ``dq``, ``dk`` and ``dv`` of one head of one sequence."""
    B, H, T = log_total.shape
    D = q.shape[1] // H
    one = q.dtype.type(1)
    zero = q.dtype.type(0)
    b, h = i // H, i % H
    size = T * D
    qh = s[:size].reshape(T, D)
    kh = s[size : 2 * size].reshape(T, D)
    vh = s[2 * size : 3 * size].reshape(T, D)
    dzh = s[3 * size : 4 * size].reshape(T, D)
    dkh = s[4 * size : 5 * size].reshape(T, D)
    dvh = s[5 * size : 6 * size].reshape(T, D)
    more = s[6 * size : 7 * size].reshape(T, D)
    inv_sqrt_D = one / np.sqrt(q.dtype.type(D))
    gather(q, b * T, h, inv_sqrt_D, qh)
    gather(k, b * T, h, one, kh)
    gather(v, b * T, h, one, vh)
    gather(dz, b * T, h, one, dzh)
    for t in range(T):
        for d in range(D):
            dkh[t, d] = zero
            dvh[t, d] = zero
    rest = s[7 * size :]
    lse, delta = rest[:QUERIES], rest[QUERIES : 2 * QUERIES]
    rest = rest[2 * QUERIES :]

    for first in range(0, T, QUERIES):
        stop = min(T, first + QUERIES)
        n = stop - first
        qb, dzb = qh[first:stop], dzh[first:stop]
        zb = z[b * T + first : b * T + stop, h * D : (h + 1) * D]
        dqb = rest[: n * D].reshape(n, D)
        pattern = rest[n * D : n * D + stop * n].reshape(stop, n)  # key, query
        dscores = rest[n * D + stop * n : n * D + 2 * stop * n].reshape(stop, n)
        # the pattern again: softmax(k @ q.T / sqrt(D))
        np.dot(kh[:stop], qb.T, pattern)
        # z = pattern.T @ v, with respect to pattern
        np.dot(vh[:stop], dzb.T, dscores)
        for j in range(n):
            lse[j] = log_total[b, h, first + j]
            delta[j] = 0
            for d in range(D):
                delta[j] += dzb[j, d] * zb[j, d]
        hide_later_keys(pattern, first)
        for key in range(stop):
            for j in range(n):
                pattern[key, j] = exp(pattern[key, j] - lse[j])
                # through the softmax; sum_key(dpattern * pattern) is dz . z
                dscores[key, j] = pattern[key, j] * (dscores[key, j] - delta[j])
        np.dot(pattern, dzb, more[:stop])  # z = pattern.T @ v, with respect to v
        add(dvh, more, stop)
        np.dot(dscores, qb, more[:stop])  # scores = k @ (q / sqrt(D)).T, with respect to k
        add(dkh, more, stop)
        np.dot(dscores.T, kh[:stop], dqb)  # ... with respect to q
        scatter(dqb, inv_sqrt_D, dq, b * T + first, h)
    scatter(dkh, one, dk, b * T, h)
    scatter(dvh, one, dv, b * T, h)


attention_forward_kernel = parallel(_attention_forward)
attention_backward_kernel = parallel(_attention_backward)
