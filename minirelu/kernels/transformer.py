"""A training step made of the kernels: the forward, the loss and the backward of the whole model.

Reference: ``minirelu.model.transformer``, line by line. Two things differ. All memory comes from a
:class:`Workspace`, so that a step takes none of its own; and only what the backward reads is kept.
Tokens are one axis here, N = B*T.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from minirelu.config import ModelConfig
from minirelu.kernels import mlp_route
from minirelu.kernels.attention import (
    attention_backward_kernel,
    attention_forward_kernel,
    scratch_size,
)
from minirelu.kernels.compiling import BLOCK, TILE, n_blocks, serial
from minirelu.kernels.cross_entropy import loss_backward_kernel, loss_forward_kernel
from minirelu.kernels.dense_mlp import units_times_tokens
from minirelu.kernels.layernorm import layernorm_backward_kernel, layernorm_forward_kernel
from minirelu.kernels.linear import linear_backward_kernel, linear_forward_kernel
from minirelu.kernels.watching import watch
from minirelu.kernels.workspace import Workspace
from minirelu.model.parameters import Parameters
from minirelu.model.unit_activity import UnitActivity
from minirelu.threads import own_threads

Array = np.ndarray


@dataclass
class Saved:
    """What the forward leaves for the backward."""

    tokens: Array  # (B, T)
    layers: list[dict[str, Array]] = field(default_factory=list)  # arrays by name
    mlps: list[mlp_route.Kept] = field(default_factory=list)
    final: dict[str, Array] = field(default_factory=dict)


def loss_and_grads(
    params: Parameters,
    tokens: Array,
    targets: Array,
    config: ModelConfig,
    compute: str,
    ws: Workspace,
    grads: Parameters,
    l1: float = 0.0,
) -> tuple[float, float]:
    """Fill ``grads`` with the gradient of the cross-entropy and the penalty together.

    Parameters
    ----------
    compute : {"auto", "dense", "sparse"}
        route of the MLPs.
    grads : Parameters
        every number is overwritten.
    l1 : float
        weight of the penalty.

    Returns
    -------
    cross_entropy : float
        mean over the tokens, in nats.
    penalty : float
        ``l1`` times the mean over the tokens of a layer's sum of ``abs(hook_post)``, summed over
        the layers.
    """
    mlp_route.check_route(compute, config.act_fn)
    penalty = 0.0
    with own_threads():
        saved = forward(params, tokens, config, compute, ws)
        nats = loss_forward(params, targets, saved, ws)
        if l1:
            for kept, F in zip(saved.mlps, config.mlp_widths, strict=True):
                penalty += l1 * mlp_route.sum_of_sizes(kept, tokens.size, F) / tokens.size
        backward(params, saved, config, ws, grads, l1)
    return float(nats.mean(dtype=np.float64)), penalty


def evaluate(
    params: Parameters,
    tokens: Array,
    targets: Array,
    config: ModelConfig,
    compute: str,
    ws: Workspace,
    on_mlp_input: Callable[[int, Array], None] | None = None,
    on_logits: Callable[[Array], None] | None = None,
) -> tuple[Array, list[UnitActivity]]:
    """Run the model without a backward, and watch its hidden units.

    ``on_mlp_input`` is called with each layer's number and what its MLP reads, (N, C), which is
    overwritten afterwards; ``on_logits`` with the logits, (B, T, V).

    Returns
    -------
    nats : ndarray, (B, T)
        each token's loss.
    activity : list of L UnitActivity
        what each layer's units did in each sequence.
    """
    B, T = tokens.shape
    activity: list[UnitActivity] = []

    def count(x: Array, kept: mlp_route.Kept) -> None:
        if on_mlp_input:
            on_mlp_input(len(activity), x)
        activity.append(watch(kept, B, T, config.mlp_widths[len(activity)], off))

    mlp_route.check_route(compute, config.act_fn)
    off = config.activation.off
    with own_threads():
        saved = forward(params, tokens, config, compute, ws, count)
        nats = loss_forward(params, targets, saved, ws)
        if on_logits:  # the loss makes them tile by tile, and keeps none
            on_logits((saved.final["ln"] @ params["embed.W_E"].T).reshape(B, T, -1))
    return nats.reshape(B, T).copy(), activity


def forward(
    params: Parameters,
    tokens: Array,
    config: ModelConfig,
    compute: str,
    ws: Workspace,
    watch: Callable[[Array, mlp_route.Kept], None] | None = None,
) -> Saved:
    """From tokens to the input of the unembedding.

    With ``watch`` there will be no backward: it is called with what each MLP read and did, and the
    memory of one layer is used again for the next.
    """
    (B, T), C, H = tokens.shape, config.d_model, config.n_heads
    N, dtype = B * T, params.dtype
    saved = Saved(ws.array("tokens", (B, T), np.int64))  # one type: kernels are compiled for it
    saved.tokens[:] = tokens

    def array(name: str, *shape: int) -> Array:
        return ws.array(name, shape or (N, C), dtype)

    def bias(name: str, size: int) -> Array:
        return params[name] if name in params else ws.zeros(f"no bias {size}", (size,), dtype)

    def linear(x: Array, block: str, names: str, y: Array) -> None:
        W = params.stacked(*(f"{block}attn.W_{name}" for name in names))
        if config.bias:
            b = params.stacked(*(f"{block}attn.b_{name}" for name in names))
        else:
            b = ws.zeros(f"no biases {names}", (len(names), C), dtype)
        linear_forward_kernel(n_blocks(N), x, W, b, y)

    def norm(x: Array, name: str, where: str) -> tuple[Array, Array]:
        y, scale = array(f"{where} normalized"), array(f"{where} scale", N)
        w, b = params[name + ".w"], bias(name + ".b", C)
        layernorm_forward_kernel(n_blocks(N), x, w, b, dtype.type(config.ln_eps), y, scale)
        return y, scale

    x = array("resid embed")
    np.take(params["embed.W_E"], saved.tokens.reshape(N), axis=0, out=x, mode="clip")
    x.reshape(B, T, C)[:] += params["pos_embed.W_pos"][:T]

    for l in range(config.n_layers):
        block, prefix = f"blocks.{l}.", f"{l if watch is None else 0} "
        s: dict[str, Array] = {"resid_pre": x}

        s["ln1"], s["scale1"] = norm(x, block + "ln1", prefix + "ln1")
        s["QKV"] = array(prefix + "QKV", 3, N, C)
        linear(s["ln1"], block, "QKV", s["QKV"])
        s["z"], s["log_total"] = array(prefix + "z"), array(prefix + "log_total", B, H, T)
        scratch = ws.scratch(scratch_size(T, C // H), dtype)
        attention_forward_kernel(B * H, *s["QKV"], s["z"], s["log_total"], scratch=scratch)
        s["resid_mid"] = array(prefix + "resid_mid")
        linear(s["z"], block, "O", s["resid_mid"][None])
        s["resid_mid"] += x

        s["ln2"], s["scale2"] = norm(s["resid_mid"], block + "ln2", prefix + "ln2")
        x = array(f"resid {l if watch is None else l % 2}")
        np.add(s["resid_mid"], bias(block + "mlp.b_out", C), out=x)
        kept = mlp_route.mlp_forward(
            s["ln2"], mlp_params(params, l, bias), x, compute, ws, prefix + "mlp",
            config.act_fn, config.act_k,
        )  # fmt: skip
        if watch is not None:
            watch(s["ln2"], kept)
        else:
            saved.layers.append(s)
            saved.mlps.append(kept)

    saved.final["resid"] = x
    saved.final["ln"], saved.final["scale"] = norm(x, "ln_final", "ln_final")
    return saved


def loss_forward(params: Parameters, targets: Array, saved: Saved, ws: Workspace) -> Array:
    """Each token's loss in nats, (N,); what the backward needs stays with ``saved``."""
    W_E, x = params["embed.W_E"], saved.final["ln"]
    N, V, dtype = len(x), len(W_E), x.dtype
    f = saved.final
    f["targets"] = ws.array("targets", (N,), np.int64)
    f["targets"].reshape(targets.shape)[:] = targets
    f["dlogits"] = ws.array("dlogits", (n_blocks(N), V * BLOCK), dtype)
    f["shift"] = ws.array("shift", (n_blocks(V, TILE), N), dtype)
    nats, kept = ws.array("nats", (N,), dtype), (f["dlogits"], f["shift"])
    scratch = ws.scratch(3 * BLOCK, dtype)
    loss_forward_kernel(n_blocks(N), x, W_E, f["targets"], *kept, nats, scratch=scratch)
    return nats


def backward(
    params: Parameters,
    saved: Saved,
    config: ModelConfig,
    ws: Workspace,
    grads: Parameters,
    l1: float = 0.0,
) -> None:
    """From the loss and the penalty to every parameter: the forward, read upwards."""
    (B, T), C = saved.tokens.shape, config.d_model
    N, dtype, blocks = B * T, params.dtype, n_blocks(B * T)

    def array(name: str, *shape: int) -> Array:
        return ws.array(name, shape or (N, C), dtype)

    def grad(name: str, size: int) -> Array:  # of a bias, which the model may lack
        return grads[name] if name in grads else array(f"no gradient {size}", size)

    def norm_backward(dy: Array, x: Array, scale: Array, name: str, dx: Array) -> None:
        parts = array("layernorm parts", blocks, 2, C)
        layernorm_backward_kernel(blocks, dy, x, scale, params[name + ".w"], dx, parts)
        np.add.reduce(parts[:, 0], axis=0, out=grads[name + ".w"])
        np.add.reduce(parts[:, 1], axis=0, out=grad(name + ".b", C))

    def linear_backward(dy: Array, x: Array, block: str, names: str, dx: Array) -> None:
        K, W_names = len(names), [f"{block}attn.W_{name}" for name in names]
        dW_part = array(f"dW parts {names}", blocks, K, C, C)
        db_part = array(f"db parts {names}", blocks, K, C)
        linear_backward_kernel(
            blocks, dy, x, params.stacked(*W_names), dx, dW_part, db_part,
            scratch=ws.scratch(BLOCK * C, dtype),
        )  # fmt: skip
        np.add.reduce(dW_part, axis=0, out=grads.stacked(*W_names))
        if config.bias:
            b_names = [f"{block}attn.b_{name}" for name in names]
            np.add.reduce(db_part, axis=0, out=grads.stacked(*b_names))

    # nats = cross_entropy(layernorm(x) @ W_E.T), of which the loss is the mean
    f, W_E = saved.final, params["embed.W_E"]
    dnormalized, dx = array("dnormalized"), ws.zeros("dx", (N, C), dtype)
    scratch, share = ws.scratch(max(BLOCK, TILE) * C, dtype), dtype.type(1 / N)
    loss_backward_kernel(
        blocks, W_E, f["targets"], share, f["dlogits"], f["shift"], dnormalized, scratch=scratch
    )
    units_times_tokens(
        n_blocks(len(W_E), TILE), f["dlogits"], f["ln"], grads["embed.W_E"], scratch=scratch
    )
    norm_backward(dnormalized, f["resid"], f["scale"], "ln_final", dx)

    for l in reversed(range(config.n_layers)):
        block, s = f"blocks.{l}.", saved.layers[l]
        # x = x + mlp(layernorm(x)): the gradient goes both ways and meets again
        g = {name: grads[f"{block}mlp.{name}"] for name in ("W_in", "W_out")}
        g["b_in"] = grad(block + "mlp.b_in", config.mlp_widths[l])
        p = {name: params[f"{block}mlp.{name}"] for name in ("W_in", "W_out")}
        mlp_route.mlp_backward(dx, s["ln2"], p, saved.mlps[l], dnormalized, g, ws, l1)
        np.add.reduce(dx, axis=0, out=grad(block + "mlp.b_out", C))
        norm_backward(dnormalized, s["resid_mid"], s["scale2"], block + "ln2", dx)

        # x = x + attention(layernorm(x))
        dz, dQKV = array("dz"), array("dQKV", 3, N, C)
        linear_backward(dx[None], s["z"], block, "O", dz)
        attention_backward_kernel(
            B * config.n_heads, dz, *s["QKV"], s["z"], s["log_total"], *dQKV,
            scratch=ws.scratch(scratch_size(T, C // config.n_heads), dtype),
        )  # fmt: skip
        linear_backward(dQKV, s["ln1"], block, "QKV", dnormalized)
        norm_backward(dnormalized, s["resid_pre"], s["scale1"], block + "ln1", dx)

    # x = W_E[tokens] + W_pos
    scatter_add(dx, saved.tokens.reshape(N), grads["embed.W_E"])
    grads["pos_embed.W_pos"].fill(0)
    np.add.reduce(dx.reshape(B, T, C), axis=0, out=grads["pos_embed.W_pos"][:T])


def mlp_params(
    params: Parameters, l: int, bias: Callable[[str, int], Array]
) -> Mapping[str, Array]:
    """The MLP's weights of layer l, with a bias of 0 where the model lacks one."""
    block = f"blocks.{l}.mlp."
    W_in, W_out = params[block + "W_in"], params[block + "W_out"]
    return {"W_in": W_in, "b_in": bias(block + "b_in", len(W_in)), "W_out": W_out}


def _scatter_add(
    dx,  # (N, C)
    tokens,  # (N,)
    dW_E,  # (V, C)
):
    """Each row of ``dW_E`` collects the gradient of every place its token was used in."""
    for n in range(tokens.size):
        for c in range(dx.shape[1]):
            dW_E[tokens[n], c] += dx[n, c]


scatter_add = serial(_scatter_add)
