"""Every hand-written backward of ``model/`` against central differences, in float64.

The upstream gradient is random, gains and biases are not 1 and 0: with special values a wrong
backward can look right.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from minirelu.check.rows import Row, relative_error
from minirelu.config import ModelConfig
from minirelu.errors import UserError
from minirelu.generation import Cache, forward_cached
from minirelu.model.activation_functions import act_fn_names, act_fn_settings, activation_function
from minirelu.model.activations import mlp_names
from minirelu.model.attention import attention_backward, attention_forward
from minirelu.model.cross_entropy import cross_entropy
from minirelu.model.embedding import (
    embedding_backward,
    embedding_forward,
    unembedding_backward,
    unembedding_forward,
)
from minirelu.model.layernorm import layernorm_backward, layernorm_forward
from minirelu.model.linear import linear_backward, linear_forward
from minirelu.model.mlp import l1_penalty, mlp_backward, mlp_forward
from minirelu.model.parameters import Parameters
from minirelu.model.transformer import backward, forward

STEP = 1e-5
LIMIT = 1e-6
# Odd on purpose: 3 heads, widths that are multiples of nothing, a prime vocabulary.
TINY = ModelConfig(n_layers=2, n_heads=3, d_model=12, d_mlp=37, n_ctx=9, d_vocab=101, act_k=5)

Array = np.ndarray


def central_differences(f: Callable[[], float], x: Array) -> Array:
    """(f(x + h) - f(x - h)) / 2h for every entry of x, which is changed in place, and back."""
    gradient = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        before = x[i]
        x[i] = before + STEP
        above = f()
        x[i] = before - STEP
        below = f()
        x[i] = before
        gradient[i] = (above - below) / (2 * STEP)
    return gradient


def gradient_rows(act_fns: Sequence[str] | None = None) -> Iterator[Row]:
    """Compare every operation's backward, then the whole model's, with central differences.

    Parameters
    ----------
    act_fns : sequence of str, optional
        activation functions; None: all of them.

    Yields
    ------
    Row

    Examples
    --------
    >>> all(row.fine for row in gradient_rows(["relu"]))
    True
    """
    rng = np.random.default_rng(1)
    yield from _embedding(rng)
    yield from _layernorm(rng)
    yield from _linear(rng)
    yield from _attention(rng)
    for name in act_fn_names() if act_fns is None else act_fns:
        yield from _mlp(rng, name)
    yield from _cross_entropy(rng)
    for name in act_fn_names() if act_fns is None else act_fns:
        yield from _whole_model(name)


def _rows(
    operation: str, look_at: str, f: Callable[[], float], pairs: dict[str, tuple[Array, Array]]
) -> Iterator[Row]:
    """Rows of ``pairs``: name to (the variable, its hand-written gradient)."""
    for name, (variable, gradient) in pairs.items():
        numerical = central_differences(f, variable)
        error = relative_error(gradient, numerical, least=1e-3)
        yield Row(operation, f"d{name}", error, LIMIT, look_at)


def _embedding(rng: np.random.Generator) -> Iterator[Row]:
    W_E, W_pos, tokens = rng.normal(size=(7, 4)), rng.normal(size=(5, 4)), np.array([[1, 6, 1, 1]])
    up_embed, up_pos = rng.normal(size=(2, 1, 4, 4))

    def f() -> float:
        embed, pos = embedding_forward(tokens, W_E, W_pos)
        return float((embed * up_embed + pos * up_pos).sum())

    dW_E, dW_pos = np.zeros_like(W_E), np.zeros_like(W_pos)
    embedding_backward(up_embed, up_pos, tokens, dW_E, dW_pos)
    where = "model/embedding.py"
    yield from _rows("embedding", where, f, {"W_E": (W_E, dW_E), "W_pos": (W_pos, dW_pos)})

    x, upstream = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3, 7))

    def g() -> float:
        return float((unembedding_forward(x, W_E) * upstream).sum())

    dx, dW_E = unembedding_backward(upstream, x, W_E)
    yield from _rows("unembedding", where, g, {"x": (x, dx), "W_E": (W_E, dW_E)})


def _layernorm(rng: np.random.Generator) -> Iterator[Row]:
    # the second input is so small that epsilon is most of the scale: the gradient must include it
    for size, eps, name in ((1.0, 1e-5, "layernorm"), (1e-3, 1e-2, "layernorm, small input")):
        x = size * rng.normal(size=(2, 3, 7))
        w, b, upstream = rng.normal(1, 0.3, 7), rng.normal(size=7), rng.normal(size=x.shape)

        def f(x: Array = x, w: Array = w, b: Array = b, up: Array = upstream, eps=eps) -> float:
            return float((layernorm_forward(x, w, b, eps)[0] * up).sum())

        dx, dw, db = layernorm_backward(upstream, w, layernorm_forward(x, w, b, eps)[1])
        pairs = {"x": (x, dx), "w": (w, dw), "b": (b, db)}
        yield from _rows(name, "model/layernorm.py", f, pairs)


def _linear(rng: np.random.Generator) -> Iterator[Row]:
    x, W, b = rng.normal(size=(2, 3, 4)), rng.normal(size=(4, 5)), rng.normal(size=5)
    upstream = rng.normal(size=(2, 3, 5))

    def f() -> float:
        return float((linear_forward(x, W, b) * upstream).sum())

    dx, dW, db = linear_backward(upstream, x, W)
    yield from _rows("linear", "model/linear.py", f, {"x": (x, dx), "W": (W, dW), "b": (b, db)})


def _attention(rng: np.random.Generator) -> Iterator[Row]:
    B, T, H, C = 2, 5, 3, 6
    x, upstream = rng.normal(size=(2, B, T, C))
    p: dict[str, Any] = {f"W_{n}": rng.normal(size=(C, C)) for n in "QKVO"}
    p |= {f"b_{n}": rng.normal(size=C) for n in "QKVO"}

    def f() -> float:
        return float((attention_forward(x, p, H)[0] * upstream).sum())

    dx, dp = attention_backward(upstream, x, p, attention_forward(x, p, H)[1])
    pairs = {"x": (x, dx), **{name: (p[name], dp[name]) for name in p}}
    yield from _rows("attention", "model/attention.py", f, pairs)


def _mlp(rng: np.random.Generator, name: str) -> Iterator[Row]:
    N, C, F, l1 = 11, 3, 7, 0.3
    act = activation_function(name, **dict.fromkeys(act_fn_settings(name), 3))
    pre, upstream = rng.normal(size=(2, N, F))

    def f() -> float:
        return float((act.forward(pre) * upstream).sum())

    where = "model/activation_functions.py"
    yield from _rows(name, where, f, {"pre": (pre, act.backward(upstream, pre))})

    x, upstream = rng.normal(size=(2, N, C))
    W_in, W_out = rng.normal(size=(2, F, C))
    b_in, b_out = rng.normal(size=F), rng.normal(size=C)

    def g() -> float:
        y, (_, _, post) = mlp_forward(x, W_in, b_in, W_out, b_out, act)
        return float((y * upstream).sum()) + l1_penalty(post, l1)

    _, saved = mlp_forward(x, W_in, b_in, W_out, b_out, act)
    grads = mlp_backward(upstream, W_in, W_out, saved, act, l1)
    variables = {"x": x, "W_in": W_in, "b_in": b_in, "W_out": W_out, "b_out": b_out}
    pairs = {n: (v, g) for (n, v), g in zip(variables.items(), grads, strict=True)}
    yield from _rows(f"mlp with {name} and l1", "model/mlp.py", g, pairs)


def refuse_wrong_gradient(act_fn: str) -> None:
    """Raise if the backward of an activation function is not that of its forward.

    Raises
    ------
    UserError
        it is not, perhaps on purpose.
    """
    for row in _mlp(np.random.default_rng(1), act_fn):
        if not row.fine:
            raise UserError(
                f"the backward of {act_fn} is not that of its forward: {row.operation}, "
                f"{row.tensor}, relative error {row.error:.1e} where {row.limit:.0e} is allowed "
                f"(look at {row.look_at}); an explicit --compute reference trains with it all the "
                "same; minirelu check shows all"
            )


def _cross_entropy(rng: np.random.Generator) -> Iterator[Row]:
    logits, targets = 3 * rng.normal(size=(2, 3, 7)), rng.integers(0, 7, (2, 3))
    dlogits = cross_entropy(logits, targets)[1]
    yield from _rows(
        "cross-entropy", "model/cross_entropy.py", lambda: cross_entropy(logits, targets)[0],
        {"logits": (logits, dlogits)},
    )  # fmt: skip


def random_model(act_fn: str = "relu", seed: int = 3) -> tuple[ModelConfig, Parameters]:
    """Return a tiny model with nothing special about its weights: gains not 1, biases not 0."""
    config = dataclasses.replace(TINY, act_fn=act_fn)
    params = Parameters(config, np.float64)
    rng = np.random.default_rng(seed)
    for name, p in params.items():
        p[...] = rng.normal(1.0 if name.endswith(".w") else 0.0, 0.3, p.shape)
    return config, params


def _whole_model(name: str) -> Iterator[Row]:
    """Each tensor in three random directions: a directional derivative sees all its entries."""
    config, params = random_model(name)
    rng = np.random.default_rng(4)
    tokens, targets = rng.integers(0, config.d_vocab, (2, 2, 8))
    l1 = 0.01

    def loss() -> float:
        logits, acts = forward(params, tokens, config, keep=mlp_names(config))
        penalty = sum(l1_penalty(acts[post], l1) for post in mlp_names(config))
        return cross_entropy(logits, targets)[0] + penalty

    logits, acts = forward(params, tokens, config)
    grads = backward(params, acts, cross_entropy(logits, targets)[1], config, l1=l1)
    worst, which = 0.0, ""
    for tensor, p in params.items():
        for direction in rng.normal(size=(3, *p.shape)):
            direction /= np.linalg.norm(direction)
            before, h = p.copy(), 2e-6
            p[...] = before + h * direction
            above = loss()
            p[...] = before - h * direction
            below = loss()
            p[...] = before
            analytical = float((grads[tensor] * direction).sum())
            # the gradient of a bias of the keys is 0: all scores of a query gain the same
            size = max(float(np.linalg.norm(grads[tensor])), 1e-3)
            error = abs((above - below) / (2 * h) - analytical) / size
            if not error <= worst:
                worst, which = error, tensor
    look_at = "model/transformer.py, and the operations above"
    yield Row(f"whole model with {name} and l1", f"gradient of {which}", worst, LIMIT, look_at)


def cache_rows() -> Iterator[Row]:
    """Token by token with a cache of keys and values, against the whole sequence at once."""
    config, params = random_model()
    tokens = np.random.default_rng(5).integers(0, config.d_vocab, (2, 9))
    cache = Cache(config, 2, np.dtype(np.float64))
    parts = [forward_cached(params, tokens[:, i : i + 1], config, cache) for i in range(9)]
    error = relative_error(np.concatenate(parts, axis=1), forward(params, tokens, config)[0])
    yield Row("cache of sample", "logits", error, 1e-12, "generation.py, model/attention.py")
