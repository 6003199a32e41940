"""The whole model: what it hands out, that it is causal, and that all routes agree."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from helpers import random_params, random_tokens

import minirelu as mr
from minirelu.model.activations import ACTIVATIONS, activation_names, as_markdown
from minirelu.model.embedding import embedding_backward
from minirelu.model.parameters import parameter_shapes


def test_activations_are_those_of_the_table(odd):
    params, tokens = random_params(odd), random_tokens(odd, 2, 7)
    _, acts = mr.forward(params, tokens, odd)
    sizes = dict(B=2, T=7, C=12, F=37, H=3, D=4)
    assert list(acts) == activation_names(odd)
    for row in ACTIVATIONS:
        shape = tuple(sizes.get(letter, 1) for letter in row.shape.split())
        for l in range(odd.n_layers):
            assert acts[row.name.format(l=l)].shape == shape, row.name


def test_activations_mean_what_the_table_says(odd):
    """Every activation, recomputed from others in plain NumPy."""
    params, tokens = random_params(odd), random_tokens(odd, 2, 7)
    logits, acts = mr.forward(params, tokens, odd)
    close = np.testing.assert_allclose

    def norm(x, scale, name):
        centred = x - x.mean(-1, keepdims=True)
        close(scale, np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5))
        return centred / scale * params[f"{name}.w"] + params[f"{name}.b"]

    close(acts["hook_embed"], params["embed.W_E"][tokens])
    close(acts["hook_pos_embed"][1], params["pos_embed.W_pos"][:7])
    x = acts["hook_embed"] + acts["hook_pos_embed"]
    for l in range(odd.n_layers):
        a = {k.removeprefix(f"blocks.{l}."): v for k, v in acts.items()}
        p = {k.removeprefix(f"blocks.{l}."): v for k, v in params.items()}
        close(a["hook_resid_pre"], x)
        n1 = a["ln1.hook_normalized"]
        close(n1, norm(x, a["ln1.hook_scale"], f"blocks.{l}.ln1"))
        for n in "qkv":
            projected = n1 @ p[f"attn.W_{n.upper()}"] + p[f"attn.b_{n.upper()}"]
            close(a[f"attn.hook_{n}"].reshape(2, 7, 12), projected)
        scores = np.einsum("bqhd,bkhd->bhqk", a["attn.hook_q"], a["attn.hook_k"]) / 2.0
        scores[..., np.triu(np.ones((7, 7), bool), 1)] = -np.inf
        close(a["attn.hook_attn_scores"], scores)
        pattern = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        close(a["attn.hook_pattern"], pattern)
        close(a["attn.hook_z"], np.einsum("bhqk,bkhd->bqhd", pattern, a["attn.hook_v"]))
        out = a["attn.hook_z"].reshape(2, 7, 12) @ p["attn.W_O"] + p["attn.b_O"]
        close(a["hook_attn_out"], out)
        close(a["hook_resid_mid"], x + out)
        n2 = a["ln2.hook_normalized"]
        close(n2, norm(a["hook_resid_mid"], a["ln2.hook_scale"], f"blocks.{l}.ln2"))
        close(a["mlp.hook_pre"], n2 @ p["mlp.W_in"].T + p["mlp.b_in"])
        close(a["mlp.hook_post"], np.clip(a["mlp.hook_pre"], 0, None))
        close(a["hook_mlp_out"], a["mlp.hook_post"] @ p["mlp.W_out"] + p["mlp.b_out"])
        x = a["hook_resid_mid"] + a["hook_mlp_out"]
        close(a["hook_resid_post"], x)
    final = norm(x, acts["ln_final.hook_scale"], "ln_final")
    close(acts["ln_final.hook_normalized"], final)
    close(logits, final @ params["embed.W_E"].T)


def test_readme_holds_the_table_of_activations():
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert f"<!-- activations -->\n{as_markdown()}<!-- /activations -->" in readme, (
        "put the output of python -m minirelu.model.activations between the two markers"
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mlp", ["reference", "dense", "sparse"])
def test_every_result_has_the_dtype_of_the_parameters(odd, dtype, mlp):
    params, tokens = random_params(odd, dtype=dtype), random_tokens(odd, 2, 7)
    logits, acts = mr.forward(params, tokens, odd)
    _, grads = mr.loss_and_grads(params, tokens, tokens, odd, compute=mlp)
    arrays = {"logits": logits, **acts, **grads}
    del arrays["tokens"]
    assert {name: a.dtype for name, a in arrays.items() if a.dtype != dtype} == {}


def test_forward_keeps_only_the_activations_named(odd):
    params, tokens = random_params(odd), random_tokens(odd, 1, 5)
    all_logits, all_acts = mr.forward(params, tokens, odd)
    names = ["blocks.1.mlp.hook_pre", "blocks.0.mlp.hook_post"]
    logits, acts = mr.forward(params, tokens, odd, keep=names)
    assert set(acts) == set(names)
    np.testing.assert_array_equal(logits, all_logits)
    for name in names:
        np.testing.assert_array_equal(acts[name], all_acts[name])


def test_routes_agree(odd):
    """Forward, loss and backward in three calls, and the fast one: same loss, same gradients."""
    params, tokens = random_params(odd), random_tokens(odd, 3, 9)
    targets = random_tokens(odd, 3, 9, seed=1)
    logits, acts = mr.forward(params, tokens, odd)
    loss, dlogits = mr.cross_entropy(logits, targets)
    grads = mr.backward(params, acts, dlogits, odd)
    for mlp in ("auto", "dense", "sparse", "reference"):
        fast_loss, fast_grads = mr.loss_and_grads(params, tokens, targets, odd, compute=mlp)
        assert fast_loss == pytest.approx(loss, rel=1e-13)
        np.testing.assert_allclose(fast_grads.flat, grads.flat, rtol=1e-10, atol=1e-14)


def test_no_position_sees_a_later_one(odd):
    """The gradient of one position's logits with respect to later inputs is exactly zero."""
    params, tokens = random_params(odd), random_tokens(odd, 1, 8)
    dlogits = np.zeros((1, 8, odd.d_vocab))
    dlogits[0, 3] = np.random.default_rng(0).normal(size=odd.d_vocab)
    _, acts = mr.forward(params, tokens, odd)
    dW_pos = mr.backward(params, acts, dlogits, odd)["pos_embed.W_pos"]
    assert np.all(dW_pos[4:] == 0)
    assert np.all(np.abs(dW_pos[:4]).max(axis=1) > 0)


def test_later_tokens_change_nothing_before_them(odd):
    params, tokens = random_params(odd), random_tokens(odd, 1, 8)
    other = tokens.copy()
    other[0, 5:] = (other[0, 5:] + 1) % odd.d_vocab
    a, b = mr.forward(params, tokens, odd)[0], mr.forward(params, other, odd)[0]
    assert np.array_equal(a[:, :5], b[:, :5])
    assert not np.allclose(a[:, 5:], b[:, 5:])


def test_d_mlp_may_differ_by_layer():
    config = mr.ModelConfig(2, 2, 8, d_mlp=(3, 5), n_ctx=4, d_vocab=7)
    params, tokens = random_params(config), random_tokens(config, 2, 4)
    _, acts = mr.forward(params, tokens, config)
    assert acts["blocks.0.mlp.hook_post"].shape[-1] == 3
    assert acts["blocks.1.mlp.hook_post"].shape[-1] == 5
    assert mr.loss_and_grads(params, tokens, tokens, config)[1]["blocks.1.mlp.W_in"].shape == (5, 8)


def test_parameters_are_views_of_one_vector(odd):
    params = mr.init_params(odd)
    shapes = parameter_shapes(odd)
    assert {name: p.shape for name, p in params.items()} == shapes
    assert params.flat.size == sum(p.size for p in params.values()) == mr.n_params(odd)
    params.flat[:] = np.arange(params.flat.size)
    everything = np.concatenate([p.ravel() for p in params.values()])
    assert np.array_equal(np.sort(everything), params.flat)
    matrices = np.concatenate([p.ravel() for p in params.values() if p.ndim == 2])
    assert np.array_equal(np.sort(matrices), params.flat[: params.n_matrix])


@pytest.mark.parametrize("init", ["gpt2", "nanodo"])
def test_initial_weights_have_their_standard_deviations(init):
    config = mr.ModelConfig(4, 2, 64, 256, 32, 500, init=init)
    params = mr.init_params(config, seed=5)
    residual = 0.02 / np.sqrt(8)
    std = {
        "gpt2": {"embed.W_E": 0.02, "W_Q": 0.02, "W_O": residual, "W_in": 0.02, "W_out": residual},
        "nanodo": {
            "embed.W_E": 1 / 8,
            "W_Q": np.sqrt(2 / 128),
            "W_O": np.sqrt(2 / 128),
            "W_in": np.sqrt(2 / 320),
            "W_out": np.sqrt(2 / 320),
        },
    }[init]
    for ending, wanted in std.items():
        for name, p in params.items():
            if name.endswith(ending):
                assert p.std() == pytest.approx(wanted, rel=0.05), name
    assert np.array_equal(params.flat, mr.init_params(config, seed=5).flat)
    assert not np.array_equal(params.flat, mr.init_params(config, seed=6).flat)
    exact = mr.init_params(config, seed=5, dtype=np.float64)
    assert np.array_equal(exact.flat.astype(np.float32), params.flat)


@pytest.mark.parametrize("init", ["gpt2", "nanodo"])
def test_factors_scale_only_their_own_initial_weights(init):
    plain = mr.ModelConfig(2, 2, 8, 32, 16, 50, init=init)
    scaled = dataclasses.replace(plain, init_embed=0.25, init_w_in=4.0)
    before = mr.init_params(plain, dtype=np.float64)
    for name, p in mr.init_params(scaled, dtype=np.float64).items():
        factor = 0.25 if "embed.W" in name and "unembed" not in name else 1
        factor = 4 if name.endswith("W_in") else factor
        assert np.allclose(p, factor * before[name], rtol=1e-12, atol=0), name


@pytest.mark.parametrize(
    "tokens, words",
    [
        (np.zeros((2, 3)), "whole numbers"),
        (np.zeros(3, int), "(B, T)"),
        (np.zeros((1, 10), int), "n_ctx 9"),
        (np.full((1, 3), 101), "0 to 100"),
        (np.full((1, 3), -1), "0 to 100"),
        (np.zeros((0, 3), int), "(B, T)"),
    ],
)
def test_wrong_tokens_are_named(odd, tokens, words):
    with pytest.raises(ValueError, match="tokens") as e:
        mr.forward(random_params(odd), tokens, odd)
    assert words in str(e.value)


def test_wrong_names_and_missing_activations_are_named(odd):
    params, tokens = random_params(odd), random_tokens(odd, 1, 5)
    with pytest.raises(ValueError, match="did you mean 'blocks.0.mlp.hook_post'"):
        mr.forward(params, tokens, odd, keep=["blocks.0.mlp.hook_pots"])
    with pytest.raises(ValueError, match="give a list"):
        mr.forward(params, tokens, odd, keep="blocks.0.mlp.hook_post")
    logits, acts = mr.forward(params, tokens, odd, keep=["blocks.0.mlp.hook_post"])
    with pytest.raises(ValueError, match="blocks.0.attn.hook_k"):
        mr.backward(params, acts, logits, odd)
    with pytest.raises(ValueError, match="targets: shape"):
        mr.loss_and_grads(params, tokens, tokens[:, :3], odd)


def test_embedding_backward_adds_up_repeated_tokens():
    dW_E, dW_pos = np.ones((4, 2)), np.zeros((5, 2))
    dx = np.arange(12.0).reshape(2, 3, 2)
    embedding_backward(dx, dx, np.array([[1, 1, 2], [1, 0, 2]]), dW_E, dW_pos)
    assert dW_E.tolist() == [[9, 10], [9, 12], [15, 17], [1, 1]]
    assert dW_pos.tolist() == [[6, 8], [10, 12], [14, 16], [0, 0], [0, 0]]
