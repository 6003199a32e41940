"""Which of the two MLPs is used: the dense one or the sparse one, layer by layer, step by step.

The choice depends on nothing but the step's own numbers: the share of units that are on at
``SAMPLE`` tokens, spread evenly over the batch. So it is the same again after an interruption,
and with any number of threads. For topk that share is known before, and what is never exactly zero
has only the dense one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from minirelu.errors import UserError
from minirelu.kernels import dense_mlp as dense
from minirelu.kernels import sparse_mlp as sparse
from minirelu.kernels.activations import CODES, GELU, TOPK
from minirelu.kernels.available import COMPILED, SPARSE
from minirelu.kernels.compiling import BLOCK, TILE, n_blocks, parallel
from minirelu.kernels.topk import list_largest, spread_list
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
    are None where there is none. ``slope`` is the derivative of ``post``, where the dense route
    needs it beside ``post``.
    """

    act: int  # a code of kernels/activations.py
    values: Array  # (blocks, F * BLOCK + 1)
    start: Array | None = None  # (blocks, F + 1)
    token: Array | None = None  # (blocks, F * BLOCK + 1)
    slope: Array | None = None  # (blocks, F * BLOCK + 1), or (blocks, 0)


def _count_on(
    i,  # which tile of the units
    sample,  # (S, C)
    W_in,  # (F, C)
    b_in,  # (F,)
    count,  # (tiles of F,)
    scratch,  # (TILE * S,)
):
    """Count the pairs of the tile with a pre-activation above 0."""
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
    """Share of units with a pre-activation above 0, over a sample of the tokens."""
    (N, C), F = x.shape, W_in.shape[0]
    S = min(SAMPLE, N)
    sample = ws.array("sample", (S, C), x.dtype)
    for i in range(S):
        sample[i] = x[i * N // S]
    count = ws.array(f"count {F}", (n_blocks(F, TILE),), np.int64)
    count_on(count.size, sample, W_in, b_in, count, scratch=ws.scratch(TILE * S, x.dtype))
    return int(count.sum()) / (S * F)


def mlp_forward(
    x: Array, p: Mapping[str, Array], y: Array, compute: str, ws: Workspace, name: str,
    act_fn: str = "relu", act_k: int = 0,
) -> Kept:  # fmt: skip
    """Add what the MLP writes, but for ``b_out``, to ``y``.

    Parameters
    ----------
    x, y : ndarray, (N, C)
    p : mapping
        ``W_in`` (F, C), ``b_in`` (F,), ``W_out`` (F, C).
    compute : {"auto", "dense", "sparse"}
    ws : Workspace
    name : str
        of what is kept for the backward.
    act_fn : str
        one of ``available.COMPILED``.
    act_k : int
        how many units topk keeps.
    """
    (N, C), F, act = x.shape, len(p["W_in"]), CODES[act_fn]
    blocks, dtype, weights = n_blocks(N), x.dtype, (p["W_in"], p["b_in"], p["W_out"])
    values = ws.array(f"{name} values", (blocks, F * BLOCK + 1), dtype)

    def pairs(name: str) -> tuple[Array, Array]:
        start = ws.array(f"{name} start", (blocks, F + 1), np.int32)
        return start, ws.array(f"{name} token", values.shape, np.uint16)

    def list_topk(start: Array, token: Array, value: Array) -> None:
        scratch = ws.scratch(F * BLOCK, dtype)
        list_largest(blocks, act_k, x, *weights[:2], start, token, value, scratch=scratch)

    if is_sparse(x, p, compute, ws, act_fn, act_k):
        start, token = pairs(name)
        if act == TOPK:
            list_topk(start, token, values)
        sparse.sparse_forward_kernel(
            blocks, act, x, *weights, y, start, token, values,
            scratch=ws.scratch(TILE * BLOCK, dtype),
        )  # fmt: skip
        return Kept(act, values, start, token)

    keeps_slope = act in (GELU, TOPK)
    slope = ws.array(f"{name} slope", values.shape if keeps_slope else (blocks, 0), dtype)
    if act == TOPK:
        listed = (*pairs("topk"), ws.array("topk values", values.shape, dtype))
        list_topk(*listed)
        spread_list(blocks, N, *listed, values, slope)
    dense.dense_forward_kernel(
        blocks, act, x, *weights, y, values, slope, scratch=ws.scratch(BLOCK * C, dtype)
    )
    return Kept(act, values, slope=slope)


def is_sparse(
    x: Array, p: Mapping[str, Array], compute: str, ws: Workspace, act_fn: str, act_k: int
) -> bool:
    """Whether the sparse route is taken, by the setting or because few units are on."""
    if compute != "auto" or act_fn not in SPARSE:
        return compute == "sparse"
    F = len(p["W_in"])
    share = act_k / F if act_fn == "topk" else share_on(x, p["W_in"], p["b_in"], ws)
    return share < SPARSE_BELOW


def mlp_backward(
    dy: Array, x: Array, p: Mapping[str, Array], kept: Kept, dx: Array, g: Mapping[str, Array],
    ws: Workspace, l1: float = 0.0,
) -> None:  # fmt: skip
    """Fill dx and the gradients ``W_in``, ``b_in`` and ``W_out`` in ``g``.

    What was kept is used up. ``l1`` is the penalty on the mean over the tokens, see
    :func:`sum_of_sizes`.
    """
    (N, C), F, dtype = x.shape, len(p["W_in"]), x.dtype
    blocks, weights, penalty = n_blocks(N), (p["W_in"], p["W_out"]), dtype.type(l1 / N)
    if kept.start is None:
        tiles, scratch = n_blocks(F, TILE), ws.scratch(max(BLOCK, TILE) * C + TILE * BLOCK, dtype)
        db_part = ws.array(f"db_in {F}", (blocks, F), dtype)
        post, slope = kept.values, kept.slope
        dense.units_times_tokens(tiles, post, dy, g["W_out"], scratch=scratch)
        dense.dense_backward_kernel(
            blocks, kept.act, penalty, dy, *weights, post, slope, dx, db_part, scratch=scratch
        )
        dense.units_times_tokens(tiles, post, x, g["W_in"], scratch=scratch)
        np.add.reduce(db_part, axis=0, out=g["b_in"])
        return
    pairs = (kept.start, kept.token, kept.values)
    dpre = ws.array(f"dpre {F}", kept.values.shape, dtype)
    sparse.sparse_backward_tokens(blocks, kept.act, penalty, dy, *weights, *pairs, dpre, dx)
    groups, grads = n_blocks(F, sparse.GROUP), (g["W_in"], g["b_in"], g["W_out"])
    sparse.sparse_backward_units(groups, dy, x, *pairs, dpre, *grads)


def _add_sizes(
    b,  # which block of tokens
    value,  # (blocks, F * BLOCK + 1)
    size,  # (blocks,), how many of a row's numbers count
    partial,  # (blocks,) float64
):
    """Add up the absolute values of a block in float64."""
    total = 0.0
    for i in range(size[b]):
        total += abs(np.float64(value[b, i]))
    partial[b] = total


add_sizes = parallel(_add_sizes)


def sum_of_sizes(kept: Kept, N: int, F: int) -> float:
    """Sum of ``abs(hook_post)`` of a layer, which ``l1`` is a penalty on; before the backward."""
    blocks = n_blocks(N)
    if kept.start is None:
        size = F * np.minimum(BLOCK, N - BLOCK * np.arange(blocks))
    else:
        size = kept.start[:, -1]
    partial = np.empty(blocks)
    add_sizes(blocks, kept.values, size.astype(np.int64), partial)
    return float(partial.sum())


def plain_post(kept: Kept, N: int, F: int) -> Array:
    """Return what was kept as the plain array ``hook_post``, (N, F); before the backward only."""
    post = np.zeros((N, F), kept.values.dtype)
    for b in range(len(kept.values)):
        lo, hi = b * BLOCK, min(N, (b + 1) * BLOCK)
        if kept.start is None or kept.token is None:
            post[lo:hi] = kept.values[b, : F * (hi - lo)].reshape(F, hi - lo).T
        else:
            unit = np.repeat(np.arange(F), np.diff(kept.start[b]))
            post[lo + kept.token[b, : unit.size], unit] = kept.values[b, : unit.size]
    return post


def check_route(compute: str, act_fn: str) -> None:
    """Raise unless kernels can compute the MLP of this activation function in this way."""
    if compute not in ("auto", "dense", "sparse"):
        raise UserError(
            f"compute: {compute!r} is not allowed; it must be one of auto, dense, sparse, reference"
        )
    if act_fn not in COMPILED:
        raise UserError(f"act_fn: there are no kernels for {act_fn}; choose compute reference")
    if compute == "sparse" and act_fn not in SPARSE:
        raise UserError(
            f"compute: sparse needs exact zeros, and {act_fn} has none; choose auto, dense or "
            f"reference, or act_fn {', '.join(SPARSE[:-1])} or {SPARSE[-1]}"
        )
