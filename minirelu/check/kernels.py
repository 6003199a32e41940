"""Every kernel against the reference, in float32, as training uses them.

Operations come first and whole steps last, so that the first row that differs says where to look.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from minirelu.check.rows import Row, relative_error
from minirelu.compute import evaluate, step
from minirelu.config import ModelConfig
from minirelu.errors import UserError
from minirelu.kernels.available import COMPILED, SPARSE
from minirelu.kernels.workspace import Workspace
from minirelu.model.attention import attention_backward, attention_forward
from minirelu.model.cross_entropy import cross_entropy_backward, token_losses
from minirelu.model.embedding import unembedding_backward, unembedding_forward
from minirelu.model.layernorm import layernorm_backward, layernorm_forward
from minirelu.model.linear import linear_backward, linear_forward
from minirelu.model.parameters import Parameters
from minirelu.source import ROOT, source_digest
from minirelu.threads import own_threads
from minirelu.training import optimizers

LIMIT = 2e-5  # rounding in float32 is a tenth of it
# More than a block of tokens and a tile of units, and no multiple of anything.
CONFIG = ModelConfig(2, n_heads=3, d_model=12, d_mlp=530, n_ctx=90, d_vocab=523, act_k=21)
SEQUENCES = 3

Array = np.ndarray
Pairs = dict[str, tuple[Array, Array]]  # tensor to (by the kernel, by the reference)


def kernel_rows(act_fns: Sequence[str] = COMPILED) -> Iterator[Row]:
    """Compare every kernel with the reference, then whole steps by every route.

    Parameters
    ----------
    act_fns : sequence of str
        activation functions, of those that have kernels.

    Yields
    ------
    Row
    """
    rng = np.random.default_rng(0)
    operations = {
        "layernorm": (_layernorm, "layernorm.py"),
        "linear": (_linear, "linear.py"),
        "attention": (_attention, "attention.py"),
        "loss": (_loss, "cross_entropy.py, model/embedding.py"),
    }
    for name, (pairs_of, file) in operations.items():
        with own_threads():
            pairs = pairs_of(rng)
        yield from _rows(name, pairs, f"kernels/{file.split(',')[0]}, model/{file}")
    yield from _rows("adamw", _adamw(rng), "kernels/adam.py, training/optimizers.py")
    for name in act_fns:
        for route in ("dense", "sparse") if name in SPARSE else ("dense",):
            yield from _step(name, route)


def _rows(operation: str, pairs: Pairs, look_at: str) -> Iterator[Row]:
    for tensor, (actual, expected) in pairs.items():
        error = relative_error(actual, expected, least=1e-3)
        yield Row(f"{operation}, kernel", tensor, error, LIMIT, look_at)


def _normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape, dtype=np.float32)


def _layernorm(rng: np.random.Generator) -> Pairs:
    from minirelu.kernels.compiling import n_blocks
    from minirelu.kernels.layernorm import layernorm_backward_kernel, layernorm_forward_kernel

    N, C = 300, 13
    x, dy, w, b = _normal(rng, N, C), _normal(rng, N, C), _normal(rng, C), _normal(rng, C)
    x[::7] *= 1e-3  # where epsilon matters
    y, scale, dx = np.empty_like(x), np.empty(N, x.dtype), np.zeros_like(x)
    parts = np.empty((n_blocks(N), 2, C), x.dtype)
    layernorm_forward_kernel(n_blocks(N), x, w, b, np.float32(1e-5), y, scale)
    layernorm_backward_kernel(n_blocks(N), dy, x, scale, w, dx, parts)

    expected, saved = layernorm_forward(x, w, b, 1e-5)
    ref_dx, dw, db = layernorm_backward(dy, w, saved)
    small = slice(None, None, 7)  # their gradients are a thousand times the others'
    rest = np.arange(N) % 7 != 0
    return {
        "y": (y, expected),
        "scale": (scale, saved[1][:, 0]),
        "dx": (dx[rest], ref_dx[rest]),
        "dx, small input": (dx[small], ref_dx[small]),
        "dw": (parts[:, 0].sum(axis=0), dw),
        "db": (parts[:, 1].sum(axis=0), db),
    }


def _linear(rng: np.random.Generator) -> Pairs:
    from minirelu.kernels.compiling import BLOCK, n_blocks
    from minirelu.kernels.linear import linear_backward_kernel, linear_forward_kernel

    K, N, C = 3, 300, 13
    x, W, b = _normal(rng, N, C), _normal(rng, K, C, C), _normal(rng, K, C)
    dy, y, dx = _normal(rng, K, N, C), np.empty((K, N, C), np.float32), np.empty_like(x)
    dW = np.empty((n_blocks(N), K, C, C), x.dtype)
    db = np.empty((n_blocks(N), K, C), x.dtype)
    scratch = Workspace().scratch(BLOCK * C, x.dtype)
    linear_forward_kernel(n_blocks(N), x, W, b, y)
    linear_backward_kernel(n_blocks(N), dy, x, W, dx, dW, db, scratch=scratch)

    back = [linear_backward(dy[k], x, W[k]) for k in range(K)]
    return {
        "y": (y, np.stack([linear_forward(x, W[k], b[k]) for k in range(K)])),
        "dx": (dx, np.sum([d[0] for d in back], axis=0)),
        "dW": (dW.sum(axis=0), np.stack([d[1] for d in back])),
        "db": (db.sum(axis=0), np.stack([d[2] for d in back])),
    }


def _attention(rng: np.random.Generator) -> Pairs:
    from minirelu.kernels.attention import (
        attention_backward_kernel,
        attention_forward_kernel,
        scratch_size,
    )

    B, T, H, D = 2, 150, 3, 5
    N, C = B * T, H * D
    x, dout = _normal(rng, B, T, C), _normal(rng, B, T, C)
    p: dict[str, Any] = {f"W_{n}": _normal(rng, C, C) / 2 for n in "QKVO"}
    p |= {f"b_{n}": None for n in "QKVO"}
    _, saved = attention_forward(x, p, H)
    q, k, v = (np.ascontiguousarray(saved[n].reshape(N, C)) for n in "qkv")
    z, dq, dk, dv = np.empty((4, N, C), x.dtype)
    log_total = np.empty((B, H, T), x.dtype)
    dz = dout.reshape(N, C) @ p["W_O"].T
    scratch = Workspace().scratch(scratch_size(T, D), x.dtype)
    attention_forward_kernel(B * H, q, k, v, z, log_total, scratch=scratch)
    attention_backward_kernel(B * H, dz, q, k, v, z, log_total, dq, dk, dv, scratch=scratch)

    _, dp = attention_backward(dout, x, p, saved)
    flat = x.reshape(N, C)
    return {"z": (z, saved["z"].reshape(N, C))} | {
        f"d{name}, as dW_{name}": (flat.T @ d, dp[f"W_{name}"])
        for name, d in (("Q", dq), ("K", dk), ("V", dv))
    }


def _loss(rng: np.random.Generator) -> Pairs:
    from minirelu.kernels.compiling import BLOCK, TILE, n_blocks
    from minirelu.kernels.cross_entropy import loss_backward_kernel, loss_forward_kernel
    from minirelu.kernels.dense_mlp import units_times_tokens

    N, C, V = 300, 13, 530
    x, W_E, targets = _normal(rng, N, C), _normal(rng, V, C), rng.integers(0, V, N)
    blocks, tiles = n_blocks(N), n_blocks(V, TILE)
    dlogits, shift = np.empty((blocks, V * BLOCK), x.dtype), np.empty((tiles, N), x.dtype)
    nats, dx, dW_E = np.empty(N, x.dtype), np.empty_like(x), np.empty_like(W_E)
    scratch = Workspace().scratch(max(BLOCK, TILE) * C + 3 * BLOCK, x.dtype)
    loss_forward_kernel(blocks, x, W_E, targets, dlogits, shift, nats, scratch=scratch)
    loss_backward_kernel(
        blocks, W_E, targets, np.float32(1 / N), dlogits, shift, dx, scratch=scratch
    )
    units_times_tokens(tiles, dlogits, x, dW_E, scratch=scratch)

    losses, probs = token_losses(unembedding_forward(x[None], W_E), targets[None])
    dlogits = cross_entropy_backward((probs, targets[None]))
    ref_dx, ref_dW_E = unembedding_backward(dlogits, x[None], W_E)
    return {"nats": (nats, losses), "dx": (dx, ref_dx[0]), "dW_E": (dW_E, ref_dW_E)}


def _adamw(rng: np.random.Generator) -> Pairs:
    from minirelu.kernels import adam as kernels

    p, g, m = _normal(rng, 3, 1001)
    by_kernel, by_reference = ([a.copy() for a in (p, g, m, m * m)] for _ in range(2))
    how: dict[str, Any] = dict(step=7, lr=0.01, beta1=0.8, beta2=0.97, eps=1e-5)
    how |= dict(decay=0.1, g_scale=0.3)
    kernels.adam_step(*by_kernel, **how)
    optimizers.adam_step(*by_reference, **how)
    pairs = dict(zip(("p", "g", "m", "v"), zip(by_kernel, by_reference, strict=True), strict=True))
    norms = np.array([kernels.global_norm(g)]), np.array([optimizers.global_norm(g)])
    return {"norm": norms, **{name: pairs[name] for name in ("p", "m", "v")}}


def _step(name: str, route: str) -> Iterator[Row]:
    """A whole step with an activation function, by one route; and what its units did."""
    config = dataclasses.replace(CONFIG, act_fn=name)
    rng = np.random.default_rng(1)
    params = Parameters(config)
    for tensor, p in params.items():
        p[...] = (
            1 + 0.1 * _normal(rng, *p.shape)
            if tensor.endswith(".w")
            else 0.3 * _normal(rng, *p.shape)
        )
    for l in range(config.n_layers):
        params[f"blocks.{l}.mlp.b_in"][:] -= 1.5  # about a tenth on
    tokens, targets = rng.integers(0, config.d_vocab, (2, SEQUENCES, config.n_ctx))
    results = {}
    for compute in (route, "reference"):
        grads = Parameters(config)
        losses = step(params, tokens, targets, config, compute, None, grads, l1=1e-3)
        _, activity = evaluate(params, tokens, targets, config, compute)
        results[compute] = losses, grads, activity
    (losses, grads, activity), (ref_losses, ref_grads, ref_activity) = results.values()
    operation = f"step with {name}, {route}"
    look_at = f"kernels/{route}_mlp.py, kernels/mlp_route.py, model/mlp.py, model/transformer.py"
    for i, tensor in enumerate(("loss", "l1 penalty")):
        error = relative_error(np.array(losses[i]), np.array(ref_losses[i]))
        yield Row(operation, tensor, error, LIMIT, look_at)
    errors = {n: relative_error(grads[n], ref_grads[n], least=1e-2) for n in reversed(list(grads))}
    worst = max(errors, key=lambda n: np.nan_to_num(errors[n], nan=np.inf))
    yield Row(operation, f"gradients, worst of {worst}", errors[worst], 10 * LIMIT, look_at)
    differ = sum(
        int((a.on != b.on).sum()) for a, b in zip(activity, ref_activity, strict=True)
    )  # an activation within round-off of 0 may be on in one only
    pairs = sum(a.on.size for a in activity)
    yield Row(operation, "units on, by sequence", differ / pairs, 1e-3, "kernels/watching.py")


def refuse_disagreement(config: ModelConfig) -> None:
    """Raise, saying which operation differs, if the kernels do not agree with the reference.

    Agreement is remembered, under a digest of the source.

    Raises
    ------
    UserError
        one or the other was changed.
    """
    key = f"agreed-{source_digest()}-{config.act_fn}"
    remembered = ROOT / "check" / "__pycache__" / key
    if remembered.exists():
        return
    for row in kernel_rows([config.act_fn]):
        if not row.fine:
            raise UserError(
                f"kernels and reference differ in {row.operation}: {row.tensor}, relative error "
                f"{row.error:.1e} where {row.limit:.0e} is allowed (look at {row.look_at}); "
                "--compute reference trains with the reference as it is, and an explicit "
                "--compute auto goes on with the kernels; minirelu check shows all"
            )
    try:
        remembered.parent.mkdir(exist_ok=True)
        remembered.touch()
    except OSError:
        pass  # a package that cannot be written to is checked every time
