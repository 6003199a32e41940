"""Every backward against central differences, in float64.

The upstream gradient is random, gains and biases are not 1 and 0, and no input lies so near to
the ReLU's kink that the difference crosses it. Run this file with ``-s`` to see the errors.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from helpers import random_params, random_tokens

import minirelu as mr
from minirelu.model.attention import attention_backward, attention_forward
from minirelu.model.cross_entropy import cross_entropy
from minirelu.model.embedding import (
    embedding_backward,
    embedding_forward,
    unembedding_backward,
    unembedding_forward,
)
from minirelu.model.layernorm import layernorm_backward, layernorm_forward
from minirelu.model.mlp import mlp_backward, mlp_forward

STEP = 1e-5
LIMIT = 1e-6
rng = np.random.default_rng(1)


def numerical_gradient(f: Callable[[], float], x: np.ndarray) -> np.ndarray:
    """(f(x + h) - f(x - h)) / 2h for every entry of x, which is changed in place."""
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


def relative_error(a: np.ndarray, b: np.ndarray) -> float:
    scale = max(np.linalg.norm(a), np.linalg.norm(b))
    assert scale > 0, "a gradient of nothing but zeros tests nothing"
    return float(np.linalg.norm(a - b) / scale)


def check_all(f: Callable[[], float], pairs: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """``pairs``: name to (the variable, its hand-written gradient)."""
    for name, (variable, gradient) in pairs.items():
        error = relative_error(numerical_gradient(f, variable), gradient)
        print(f"{name}: {error:.1e}")
        assert error < LIMIT, f"{name}: relative error {error:.1e}"


def test_layernorm_gradient():
    x, w, b = rng.normal(size=(2, 3, 7)), rng.normal(1, 0.3, 7), rng.normal(size=7)
    upstream = rng.normal(size=x.shape)

    def f() -> float:
        return float((layernorm_forward(x, w, b)[0] * upstream).sum())

    dx, dw, db = layernorm_backward(upstream, w, layernorm_forward(x, w, b)[1])
    check_all(f, {"x": (x, dx), "w": (w, dw), "b": (b, db)})


def test_layernorm_gradient_where_epsilon_matters():
    """Inputs so small that epsilon is most of the scale: the gradient must include it."""
    x, w, b = 1e-3 * rng.normal(size=(4, 7)), rng.normal(1, 0.3, 7), rng.normal(size=7)
    upstream = rng.normal(size=x.shape)

    def f() -> float:
        return float((layernorm_forward(x, w, b, eps=1e-2)[0] * upstream).sum())

    dx, dw, _ = layernorm_backward(upstream, w, layernorm_forward(x, w, b, eps=1e-2)[1])
    check_all(f, {"x": (x, dx), "w": (w, dw)})


def test_attention_gradient():
    B, T, H, C = 2, 5, 3, 6
    x = rng.normal(size=(B, T, C))
    p = {f"W_{n}": rng.normal(size=(C, C)) for n in "QKVO"}
    p |= {f"b_{n}": rng.normal(size=C) for n in "QKVO"}
    upstream = rng.normal(size=x.shape)

    def f() -> float:
        return float((attention_forward(x, p, H)[0] * upstream).sum())

    dx, dp = attention_backward(upstream, x, p, attention_forward(x, p, H)[1])
    # A bias of the keys adds the same to all scores of a query, which softmax does not see.
    assert np.abs(dp["b_K"]).max() < 1e-12
    assert np.abs(numerical_gradient(f, p["b_K"])).max() < 1e-8
    check_all(f, {"x": (x, dx), **{n: (p[n], dp[n]) for n in p if n != "b_K"}})


def test_mlp_gradient():
    N, C, F = 70, 3, 5
    x, W_in, W_out = rng.normal(size=(N, C)), rng.normal(size=(F, C)), rng.normal(size=(F, C))
    b_in, b_out = rng.normal(size=F), rng.normal(size=C)
    pre = x @ W_in.T + b_in
    far = np.abs(pre).min(axis=1) > 1e-3  # away from the kink
    x = x[far]
    assert len(x) > 64
    upstream = rng.normal(size=x.shape)

    def f() -> float:
        y, _ = mlp_forward(x, W_in, b_in, W_out, b_out)
        return float((y * upstream).sum())

    _, saved = mlp_forward(x, W_in, b_in, W_out, b_out)
    dx, dW_in, db_in, dW_out, db_out = mlp_backward(upstream, W_in, W_out, saved)
    check_all(
        f,
        {
            "x": (x, dx),
            "W_in": (W_in, dW_in),
            "b_in": (b_in, db_in),
            "W_out": (W_out, dW_out),
            "b_out": (b_out, db_out),
        },
    )


def test_embedding_and_unembedding_gradients():
    W_E, W_pos, tokens = rng.normal(size=(7, 4)), rng.normal(size=(5, 4)), np.array([[1, 6, 1, 1]])
    upstream = rng.normal(size=(1, 4, 7))

    def f() -> float:
        x = sum(embedding_forward(tokens, W_E, W_pos))
        return float((unembedding_forward(x, W_E) * upstream).sum())

    x = sum(embedding_forward(tokens, W_E, W_pos))
    dx, dW_E = unembedding_backward(upstream, x, W_E)
    dW_pos = np.zeros_like(W_pos)
    embedding_backward(dx, dx, tokens, dW_E, dW_pos)
    check_all(f, {"W_E": (W_E, dW_E), "W_pos": (W_pos, dW_pos)})


def test_cross_entropy_gradient():
    logits, targets = 3 * rng.normal(size=(2, 3, 7)), rng.integers(0, 7, (2, 3))
    dlogits = cross_entropy(logits, targets)[1]
    check_all(lambda: cross_entropy(logits, targets)[0], {"logits": (logits, dlogits)})


def test_cross_entropy_is_safe_with_huge_logits():
    logits = np.array([[[1e30, 0.0, -1e30]]], dtype=np.float32)
    loss, dlogits = cross_entropy(logits, np.array([[0]]))
    assert loss == 0.0 and np.all(dlogits == 0)


@pytest.mark.parametrize("mlp", ["reference", "dense", "sparse"])
@pytest.mark.parametrize("bias", [True, False])
def test_whole_model_gradient_of_every_tensor(odd, bias, mlp):
    """Each tensor in three random directions: a directional derivative sees all its entries."""
    config = mr.ModelConfig(**{**vars(odd), "bias": bias})
    params = random_params(config, seed=3)
    tokens, targets = random_tokens(config, 2, 8, seed=4), random_tokens(config, 2, 8, seed=5)
    _, acts = mr.forward(params, tokens, config)
    nearest = min(np.abs(a).min() for name, a in acts.items() if name.endswith("hook_pre"))
    assert nearest > 1e-5, "a hidden unit lies on its kink; choose another seed"

    _, grads = mr.loss_and_grads(params, tokens, targets, config, compute=mlp)
    assert set(grads) == set(params)
    worst = 0.0
    for name, p in params.items():
        if name.endswith("attn.b_K"):  # exactly 0 in theory, see test_attention_gradient
            assert np.abs(grads[name]).max() < 1e-15
            continue
        for seed in range(3):
            direction = np.random.default_rng(seed).normal(size=p.shape)
            direction /= np.linalg.norm(direction)
            before = p.copy()

            def loss_at(h: float, p=p, before=before, direction=direction) -> float:
                p[...] = before + h * direction
                return mr.loss_and_grads(params, tokens, targets, config, compute="reference")[0]

            h = 2e-6
            numerical = (loss_at(h) - loss_at(-h)) / (2 * h)
            p[...] = before
            analytical = float((grads[name] * direction).sum())
            error = abs(numerical - analytical) / (np.linalg.norm(grads[name]) + 1e-30)
            worst = max(worst, error)
            assert error < LIMIT, f"{name}: relative error {error:.1e}"
    print(f"largest relative error: {worst:.1e}")
