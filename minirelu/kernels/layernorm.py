"""Layer norm in one pass over each token's vector. Reference: ``minirelu.model.layernorm``."""

from __future__ import annotations

import numpy as np

from minirelu.kernels.compiling import BLOCK, parallel


def _layernorm_forward(
    block,  # which block of tokens
    x,  # (N, C)
    w,  # (C,)
    b,  # (C,)
    eps,
    y,  # (N, C)
    scale,  # (N,)
):
    N, C = x.shape
    for n in range(block * BLOCK, min(N, (block + 1) * BLOCK)):
        mean = x.dtype.type(0)
        for c in range(C):
            mean += x[n, c]
        mean /= x.dtype.type(C)
        variance = x.dtype.type(0)
        for c in range(C):
            variance += (x[n, c] - mean) * (x[n, c] - mean)
        scale[n] = np.sqrt(variance / x.dtype.type(C) + eps)
        for c in range(C):
            y[n, c] = (x[n, c] - mean) / scale[n] * w[c] + b[c]


def _layernorm_backward(
    block,  # which block of tokens
    dy,  # (N, C)
    x,  # (N, C)
    scale,  # (N,)
    w,  # (C,)
    dx,  # (N, C)
    partial,  # (blocks, 2, C)
):
    """Add the gradient of x to ``dx``; ``partial`` gets those of w and b, block by block."""
    N, C = x.shape
    size = x.dtype.type(C)
    dw, db = partial[block, 0], partial[block, 1]
    for c in range(C):
        dw[c] = 0
        db[c] = 0
    for n in range(block * BLOCK, min(N, (block + 1) * BLOCK)):
        mean = x.dtype.type(0)
        for c in range(C):
            mean += x[n, c]
        mean /= size
        along_normal = x.dtype.type(0)
        along_ones = x.dtype.type(0)
        for c in range(C):
            normal = (x[n, c] - mean) / scale[n]
            dnormal = dy[n, c] * w[c]
            along_normal += dnormal * normal
            along_ones += dnormal
        along_normal /= size
        along_ones /= size
        for c in range(C):
            normal = (x[n, c] - mean) / scale[n]
            dw[c] += dy[n, c] * normal  # y = normal * w + b, with respect to w
            db[c] += dy[n, c]  # ... with respect to b
            # normal = (x - mean(x)) / scale(x), with respect to x
            dnormal = dy[n, c] * w[c]
            dx[n, c] += (dnormal - normal * along_normal - along_ones) / scale[n]


layernorm_forward_kernel = parallel(_layernorm_forward)
layernorm_backward_kernel = parallel(_layernorm_backward)
