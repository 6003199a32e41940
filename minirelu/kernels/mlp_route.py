"""Which of the two MLPs is used: the dense one or the sparse one, layer by layer, step by step.

The choice depends on nothing but the step's own numbers: the share of units that are on at
``SAMPLE`` tokens, spread evenly over the batch. So it is the same again after an interruption,
and with any number of threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from minirelu.errors import UserError
from minirelu.kernels import dense_mlp as dense
from minirelu.kernels import sparse_mlp as sparse
from minirelu.kernels.compiling import BLOCK, TILE, n_blocks, parallel
from minirelu.kernels.workspace import Workspace

# Below this share of units on, walking the list is faster than the products; `minirelu bench`
# measures where the two meet.
SPARSE_BELOW = 0.33
SAMPLE = 32

Array = np.ndarray


@dataclass
class Kept:
    """What the backward needs of one layer's forward.

    ``values`` are all of ``post`` (dense) or those listed (sparse); the list's other two arrays
    are None where there is none.
    """

    values: Array  # (blocks, F * BLOCK + 1)
    start: Array | None = None  # (blocks, F + 1)
    token: Array | None = None  # (blocks, F * BLOCK + 1)


def _count_on(i, sample, W_in, b_in, count, scratch):
    # -, (S, C), (F, C), (F,), (tiles of F,), (TILE * S,)
    """Count the pairs that are on in tile i of the units."""
    S, F = sample.shape[0], W_in.shape[0]
    first, stop = i * TILE, min(F, (i + 1) * TILE)
    pre = scratch[: (stop - first) * S].reshape(stop - first, S)
    np.dot(W_in[first:stop], sample.T, pre)
    n = 0
    for j in range(stop - first):
        for t in range(S):
            n += pre[j, t] + b_in[first + j] > 0
    count[i] = n


count_on = parallel(_count_on)


def share_on(x: Array, W_in: Array, b_in: Array, ws: Workspace) -> float:
    """Share of units that are on, over a sample of the tokens."""
    (N, C), F = x.shape, W_in.shape[0]
    S = min(SAMPLE, N)
    sample = ws.array("sample", (S, C), x.dtype)
    for i in range(S):
        sample[i] = x[i * N // S]
    count = ws.array(f"count {F}", (n_blocks(F, TILE),), np.int64)
    count_on(count.size, sample, W_in, b_in, count, scratch=ws.scratch(TILE * S, x.dtype))
    return int(count.sum()) / (S * F)


def mlp_forward(
    x: Array, p: Mapping[str, Array], y: Array, mlp: str, ws: Workspace, name: str
) -> Kept:
    """Add what the MLP writes, but for ``b_out``, to ``y``.

    Parameters
    ----------
    x, y : ndarray, (N, C)
    p : mapping
        ``W_in`` (F, C), ``b_in`` (F,), ``W_out`` (F, C).
    mlp : {"auto", "dense", "sparse"}
    ws : Workspace
    name : str
        of what is kept for the backward.
    """
    (F, C), blocks = p["W_in"].shape, n_blocks(x.shape[0])
    values = ws.array(f"{name} values", (blocks, F * BLOCK + 1), x.dtype)
    weights = (p["W_in"], p["b_in"], p["W_out"])
    if mlp == "dense" or (mlp == "auto" and share_on(x, p["W_in"], p["b_in"], ws) >= SPARSE_BELOW):
        scratch = ws.scratch(BLOCK * C, x.dtype)
        dense.dense_forward_kernel(blocks, x, *weights, y, values, scratch=scratch)
        return Kept(values)
    start = ws.array(f"{name} start", (blocks, F + 1), np.int32)
    token = ws.array(f"{name} token", values.shape, np.uint16)
    scratch = ws.scratch(TILE * BLOCK, x.dtype)
    sparse.sparse_forward_kernel(blocks, x, *weights, y, start, token, values, scratch=scratch)
    return Kept(values, start, token)


def mlp_backward(
    dy: Array, x: Array, p: Mapping[str, Array], kept: Kept, dx: Array, g: Mapping[str, Array],
    ws: Workspace,
) -> None:  # fmt: skip
    """Fill dx and the gradients ``W_in``, ``b_in`` and ``W_out`` in ``g``.

    What was kept is used up.
    """
    (F, C), blocks = p["W_in"].shape, n_blocks(x.shape[0])
    W_in, W_out = p["W_in"], p["W_out"]
    if kept.start is None:
        tiles, scratch = n_blocks(F, TILE), ws.scratch(max(BLOCK, TILE) * C + TILE * BLOCK, x.dtype)
        db_part = ws.array(f"db_in {F}", (blocks, F), x.dtype)
        post = kept.values
        dense.units_times_tokens(tiles, post, dy, g["W_out"], scratch=scratch)
        dense.dense_backward_kernel(blocks, dy, W_in, W_out, post, dx, db_part, scratch=scratch)
        dense.units_times_tokens(tiles, post, x, g["W_in"], scratch=scratch)
        np.add.reduce(db_part, axis=0, out=g["b_in"])
        return
    pairs = (kept.start, kept.token, kept.values)
    dpre = ws.array(f"dpre {F}", kept.values.shape, x.dtype)
    sparse.sparse_backward_tokens(blocks, dy, W_in, W_out, *pairs, dpre, dx)
    groups, grads = n_blocks(F, sparse.GROUP), (g["W_in"], g["b_in"], g["W_out"])
    sparse.sparse_backward_units(groups, dy, x, *pairs, dpre, *grads)


def plain_post(kept: Kept, N: int, F: int) -> Array:
    """Return what was kept as the plain array ``hook_post``, (N, F); before the backward only."""
    post = np.zeros((N, F), kept.values.dtype)
    for b in range(len(kept.values)):
        lo, hi = b * BLOCK, min(N, (b + 1) * BLOCK)
        if kept.start is None:
            post[lo:hi] = kept.values[b, : F * (hi - lo)].reshape(F, hi - lo).T
        else:
            unit = np.repeat(np.arange(F), np.diff(kept.start[b]))
            post[lo + kept.token[b, : unit.size], unit] = kept.values[b, : unit.size]
    return post


def check_route(mlp: str) -> None:
    """Raise unless ``mlp`` names a way to compute the MLP."""
    if mlp not in ("auto", "dense", "sparse", "numpy"):
        raise UserError(
            f"mlp: {mlp!r} is not allowed; it must be one of auto, dense, sparse, numpy"
        )
