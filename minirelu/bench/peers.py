"""The same model, and its training step, in other frameworks: same weights, same batch.

Each is written as its users would: PyTorch with its fused attention, layer norm, cross-entropy and
AdamW; JAX with one jitted step.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from minirelu.config import ModelConfig, TrainConfig
from minirelu.model.parameters import Parameters

Array = np.ndarray
PEERS = ("torch", "torch.compile", "jax")


def installed() -> list[str]:
    """Names of the peers that can run here."""
    return [name for name in PEERS if importlib.util.find_spec(name.partition(".")[0])]


def version(peer: str) -> str:
    """Version of a peer's package."""
    import importlib.metadata

    return importlib.metadata.version(peer.partition(".")[0])


def mlp(peer: str, a: dict[str, Array]) -> Callable[[], Any]:
    """Forward and backward of one MLP; ``a`` has ``x, W_in, b_in, W_out, dy``."""
    return _jax_mlp(a) if peer == "jax" else _torch_mlp(a, compiled=peer == "torch.compile")


def step(
    peer: str,
    params: Parameters,
    tokens: Array,
    targets: Array,
    config: ModelConfig,
    train: TrainConfig,
    lr: float,
) -> Callable[[], float]:
    """Forward, backward, clipping and AdamW; each call is one step, and returns its loss."""
    make = _jax_step if peer == "jax" else _torch_step
    return make(params, tokens, targets, config, train, lr, compiled=peer == "torch.compile")


def adamw(n: int) -> Callable[[], Any]:
    """PyTorch's clipping and AdamW over n parameters."""
    import torch

    p = torch.ones(n, requires_grad=True)
    p.grad = torch.ones(n)
    optimizer = torch.optim.AdamW([p], lr=1e-3, fused=True)

    def call() -> None:
        torch.nn.utils.clip_grad_norm_([p], 1.0)
        optimizer.step()

    return call


def _torch_mlp(a: dict[str, Array], compiled: bool) -> Callable[[], Any]:
    import torch
    from torch.nn.functional import linear

    def forward(x: Any, W_in: Any, b_in: Any, W_out: Any) -> Any:
        return linear(torch.relu(linear(x, W_in, b_in)), W_out)

    weights = [a["x"], a["W_in"], a["b_in"], np.ascontiguousarray(a["W_out"].T)]
    leaves = [torch.tensor(w).requires_grad_() for w in weights]
    dy = torch.tensor(a["dy"])
    run = torch.compile(forward) if compiled else forward

    def call() -> None:
        for leaf in leaves:
            leaf.grad = None
        run(*leaves).backward(dy)

    return call


def _torch_step(
    params: Parameters, tokens: Array, targets: Array, config: ModelConfig, train: TrainConfig,
    lr: float, compiled: bool,
) -> Callable[[], float]:  # fmt: skip
    import torch
    from torch.nn import functional as fn

    leaves = {name: torch.tensor(np.array(p)).requires_grad_() for name, p in params.items()}
    decayed = [p for p in leaves.values() if p.ndim > 1]
    others = [p for p in leaves.values() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": train.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=lr, betas=(train.beta1, train.beta2), eps=train.adam_eps, fused=True,
    )  # fmt: skip
    C, H = config.d_model, config.n_heads

    def loss(p: dict[str, Any], tokens: Any, targets: Any) -> Any:
        B, T = tokens.shape

        def norm(x: Any, name: str) -> Any:
            return fn.layer_norm(x, (C,), p[name + ".w"], p.get(name + ".b"), config.ln_eps)

        def project(x: Any, W: str, b: str) -> Any:
            return x @ p[W] + p[b] if b in p else x @ p[W]

        x = p["embed.W_E"][tokens] + p["pos_embed.W_pos"][:T]
        for l in range(config.n_layers):
            block = f"blocks.{l}."
            n = norm(x, block + "ln1")
            q, k, v = (
                project(n, f"{block}attn.W_{name}", f"{block}attn.b_{name}")
                .view(B, T, H, C // H)
                .transpose(1, 2)
                for name in "QKV"
            )
            z = fn.scaled_dot_product_attention(q, k, v, is_causal=True)
            z = z.transpose(1, 2).reshape(B, T, C)
            x = x + project(z, block + "attn.W_O", block + "attn.b_O")
            n = norm(x, block + "ln2")
            post = torch.relu(fn.linear(n, p[block + "mlp.W_in"], p.get(block + "mlp.b_in")))
            x = x + project(post, block + "mlp.W_out", block + "mlp.b_out")
        logits = fn.linear(norm(x, "ln_final"), p["embed.W_E"])
        return fn.cross_entropy(logits.view(B * T, -1), targets.view(-1))

    run = torch.compile(loss) if compiled else loss
    x, y = torch.tensor(tokens), torch.tensor(targets)

    def call() -> float:
        optimizer.zero_grad()
        value = run(leaves, x, y)
        value.backward()
        torch.nn.utils.clip_grad_norm_(list(leaves.values()), train.clip_norm)
        optimizer.step()
        return value.item()

    return call


def _jax_mlp(a: dict[str, Array]) -> Callable[[], Any]:
    import jax

    def forward(x: Any, W_in: Any, b_in: Any, W_out: Any) -> Any:
        return jax.nn.relu(x @ W_in.T + b_in) @ W_out

    @jax.jit
    def both(leaves: Any, dy: Any) -> Any:
        y, backward = jax.vjp(forward, *leaves)
        return y, backward(dy)

    leaves = [jax.numpy.asarray(a[name]) for name in ("x", "W_in", "b_in", "W_out")]
    dy = jax.numpy.asarray(a["dy"])
    return lambda: jax.block_until_ready(both(leaves, dy))


def _jax_step(
    params: Parameters, tokens: Array, targets: Array, config: ModelConfig, train: TrainConfig,
    lr: float, compiled: bool,
) -> Callable[[], float]:  # fmt: skip
    import jax
    import jax.numpy as jnp

    H, D = config.n_heads, config.d_head

    def loss(p: dict[str, Any], tokens: Any, targets: Any) -> Any:
        B, T = tokens.shape

        def norm(x: Any, name: str) -> Any:
            centred = x - x.mean(-1, keepdims=True)
            y = centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + config.ln_eps)
            return y * p[name + ".w"] + p.get(name + ".b", 0)

        x = p["embed.W_E"][tokens] + p["pos_embed.W_pos"][:T]
        hidden = jnp.arange(T)[:, None] < jnp.arange(T)
        for l in range(config.n_layers):
            block = f"blocks.{l}."
            n = norm(x, block + "ln1")
            q, k, v = (
                (n @ p[f"{block}attn.W_{s}"] + p.get(f"{block}attn.b_{s}", 0)).reshape(B, T, H, D)
                for s in "QKV"
            )
            scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / D**0.5
            pattern = jax.nn.softmax(jnp.where(hidden, -jnp.inf, scores))
            z = jnp.einsum("bhqk,bkhd->bqhd", pattern, v).reshape(B, T, H * D)
            x = x + z @ p[block + "attn.W_O"] + p.get(block + "attn.b_O", 0)
            n = norm(x, block + "ln2")
            post = jax.nn.relu(n @ p[block + "mlp.W_in"].T + p.get(block + "mlp.b_in", 0))
            x = x + post @ p[block + "mlp.W_out"] + p.get(block + "mlp.b_out", 0)
        logits = norm(x, "ln_final") @ p["embed.W_E"].T
        log_p = jax.nn.log_softmax(logits)
        return -jnp.take_along_axis(log_p, targets[..., None], axis=-1).mean()

    def update(p: Any, m: Any, v: Any, t: Any, tokens: Any, targets: Any) -> Any:
        value, g = jax.value_and_grad(loss)(p, tokens, targets)
        norm = jnp.sqrt(sum((x * x).sum() for x in g.values()))
        scale = jnp.minimum(1.0, train.clip_norm / norm)
        b1, b2 = train.beta1, train.beta2
        m = {n: b1 * m[n] + (1 - b1) * scale * g[n] for n in g}
        v = {n: b2 * v[n] + (1 - b2) * (scale * g[n]) ** 2 for n in g}

        def new(n: str) -> Any:
            decay = train.weight_decay if p[n].ndim > 1 else 0.0
            to = m[n] / (1 - b1**t) / (jnp.sqrt(v[n] / (1 - b2**t)) + train.adam_eps)
            return p[n] - lr * (to + decay * p[n])

        return value, {n: new(n) for n in p}, m, v

    one = jax.jit(update, donate_argnums=(0, 1, 2))
    p = {name: jnp.asarray(np.array(a)) for name, a in params.items()}
    state = [p, jax.tree.map(jnp.zeros_like, p), jax.tree.map(jnp.zeros_like, p), 0]
    x, y = jnp.asarray(tokens), jnp.asarray(targets)

    def call() -> float:
        state[3] += 1
        value, *state[:3] = one(state[0], state[1], state[2], float(state[3]), x, y)
        jax.block_until_ready(state[:3])
        return float(value)

    return call
