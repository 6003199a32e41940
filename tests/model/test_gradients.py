"""Gradients beyond what ``minirelu check`` compares: by the kernels, and at the edges.

``tests/check`` holds every operation of the reference, and the whole model, to central differences.
Run this file with ``-s`` to see the errors.
"""

from __future__ import annotations

import numpy as np
import pytest
from helpers import random_params, random_tokens

import minirelu as mr
from minirelu.check.gradients import central_differences
from minirelu.model.attention import attention_backward, attention_forward
from minirelu.model.cross_entropy import cross_entropy

LIMIT = 1e-6


def test_a_bias_of_the_keys_has_no_gradient():
    """It adds the same to all scores of a query, which softmax does not see."""
    rng = np.random.default_rng(1)
    x, upstream = rng.normal(size=(2, 2, 5, 6))
    p = {f"W_{n}": rng.normal(size=(6, 6)) for n in "QKVO"}
    p |= {f"b_{n}": rng.normal(size=6) for n in "QKVO"}

    def f() -> float:
        return float((attention_forward(x, p, 3)[0] * upstream).sum())

    _, dp = attention_backward(upstream, x, p, attention_forward(x, p, 3)[1])
    assert np.abs(dp["b_K"]).max() < 1e-12
    assert np.abs(central_differences(f, p["b_K"])).max() < 1e-8


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
