"""The search for waking texts: its gradient, its bound, what it finds and what it does not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers import ODD, random_params, random_tokens

import minirelu as mr
from minirelu.death.certified import certified_silent, on_above
from minirelu.death.search import Budget, Target, fires, search
from minirelu.death.wake import out_of_reach
from minirelu.errors import UserError
from minirelu.model.activation_functions import activation_function, is_on
from minirelu.model.layernorm import layernorm_forward

EVERY = [
    mr.ModelConfig(**{**vars(ODD), "act_fn": act_fn, "act_k": 5, "bias": bias})
    for act_fn in ("relu", "relu2", "leaky_relu", "gelu", "topk")
    for bias in (True, False)
]
NAMES = [f"{config.act_fn} {config.bias}" for config in EVERY]


def margins_by_forward(params, config, layer, tokens, edit=None):
    """Pre-activation above the threshold, or, with topk, above the k-th largest of the others."""
    block = f"blocks.{layer}.mlp."
    _, acts = mr.forward(params, tokens, config, keep=[block + "hook_pre"], edit=edit)
    pre = acts[block + "hook_pre"]
    if config.act_fn != "topk":
        return pre
    margins = np.empty_like(pre)
    for j in range(pre.shape[-1]):
        others = np.sort(np.delete(pre, j, axis=-1), axis=-1)
        margins[..., j] = pre[..., j] - others[..., -config.act_k]
    return margins


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("config", EVERY, ids=NAMES)
def test_gradients_are_those_of_central_differences(config, layer):
    params, tokens = random_params(config), random_tokens(config, 4, 7)
    units, positions = np.array([3, 36, 0, 3]), np.array([6, 2, 4, 0])
    target = Target(params, config, layer, units)
    gradients = target.gradients(tokens, np.arange(4), positions)
    rows, step = np.arange(4), 1e-5
    rng = np.random.default_rng(0)
    for t in range(7):  # the embedding of one position at a time, in a random direction
        direction = np.zeros(gradients.shape)
        direction[:, t] = rng.standard_normal((4, config.d_model))
        ends = [
            margins_by_forward(params, config, layer, tokens, {"hook_embed": moved.__add__})
            for moved in (step * direction, -step * direction)
        ]
        numeric = (ends[0] - ends[1])[rows, positions, units] / (2 * step)
        exact = (gradients * direction).sum(axis=(1, 2))
        np.testing.assert_allclose(exact, numeric, rtol=1e-6, atol=1e-8)
        assert np.all(exact[positions < t] == 0), "a later token reached back"
    assert np.abs(gradients).max() > 1e-3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("config", EVERY, ids=NAMES)
def test_margins_say_who_is_on(config, dtype):
    params, tokens = random_params(config, dtype=dtype), random_tokens(config, 6, 9)
    every = np.arange(config.d_mlp)
    for layer in range(config.n_layers):
        post = f"blocks.{layer}.mlp.hook_post"
        _, acts = mr.forward(params, tokens, config, keep=[post])
        on = is_on(acts[post], config.activation.off)
        expected = margins_by_forward(params, config, layer, tokens)
        target = Target(params, config, layer, every)
        assert target.W.dtype == dtype
        for j in (0, 7, 36):
            margins = target.margins(tokens, np.full(6, j))
            np.testing.assert_allclose(margins, expected[..., j], rtol=1e-4, atol=1e-5)
            np.testing.assert_array_equal(margins > 0, on[..., j])
        windows, highest = target.closest(tokens, 4)
        np.testing.assert_allclose(highest, expected.max(axis=(0, 1)), rtol=1e-4, atol=1e-5)
        s, t = np.unravel_index(expected[..., 7].argmax(), (6, 9))
        first = max(0, t - 3)
        assert windows[7].tolist() == tokens[s, first : first + 4].tolist()


@pytest.mark.parametrize("config", EVERY, ids=NAMES)
def test_units_within_reach_are_woken_and_units_out_of_reach_are_not(config):
    params, text = random_params(config), random_tokens(config, 4, 9, seed=1)
    units = np.array([1, 5, 20, 36])
    for layer in range(config.n_layers):
        starts, margins = Target(params, config, layer, units).closest(text, 5)
        near = Target(params, config, layer, units, margins + 0.05)
        tried = []
        found = search(near, starts, Budget(texts=800), on_tried=tried.append)
        assert all(f.woken for f in found) and sum(tried) == 4 * 800
        for f, by in zip(found, near.lowered, strict=True):
            assert fires(params, config, layer, f.unit, f.text, by) and f.margin > 0
            assert 1 < f.tried <= 800 and f.swaps >= 1 and 1 <= len(f.text) <= 5
            assert not fires(params, config, layer, f.unit, f.text, by + f.margin + 1e-6)
        far = out_of_reach(certified_silent(params, config)[layer], config)[units]
        found = search(
            Target(params, config, layer, units, far), starts, Budget(texts=400, each_round=8)
        )
        assert [f.woken for f in found] == [False] * 4
        assert all(f.tried == 400 and f.starts > 1 and f.margin < 0 for f in found)


def pair_model() -> tuple[mr.Parameters, mr.ModelConfig, int, int]:
    """One unit that fires on token 7 after a token 3, and on nothing else of two tokens.

    The stream holds which token this is (its first V numbers), and what share of the tokens so
    far each token is (the rest), put there by attention that looks everywhere alike.
    """
    V, a, b = 11, 3, 7
    config = mr.ModelConfig(n_layers=1, n_heads=1, d_model=2 * V, d_mlp=2, n_ctx=6, d_vocab=V)
    params = mr.Parameters(config, np.float64)
    for name in ("ln1", "ln2"):
        params[f"blocks.0.{name}.w"][:] = 1
    params["embed.W_E"][:, :V] = np.eye(V)
    params["blocks.0.attn.W_V"][:V, V:] = np.eye(V)
    params["blocks.0.attn.W_O"][:] = 0.2 * np.eye(2 * V)
    params["blocks.0.mlp.W_in"][0, [b, V + a]] = 1
    pairs = np.stack(np.meshgrid(np.arange(V), np.arange(V), indexing="ij"), -1).reshape(-1, 2)
    at_end = margins_by_forward(params, config, 0, pairs)[:, 1, 0]
    second, first = np.sort(at_end)[-2:]
    assert pairs[at_end.argmax()].tolist() == [a, b]
    params["blocks.0.mlp.b_in"][0] = -(first + second) / 2
    return params, config, a, b


def test_the_planted_key_is_found_and_nothing_else():
    params, config, a, b = pair_model()
    assert not certified_silent(params, config)[0].silent[0]
    target = Target(params, config, 0, np.array([0]))
    for start in (0, 5, b):
        (found,) = search(target, np.full((1, 6), start), Budget(texts=400))
        assert found.woken and found.text == [a, b]
        assert fires(params, config, 0, 0, found.text)

    params["blocks.0.mlp.b_in"][0] -= 10
    assert certified_silent(params, config)[0].silent[0]
    (found,) = search(
        target := Target(params, config, 0, np.array([0])), np.zeros((1, 6), int), Budget(texts=400)
    )
    assert not found.woken and found.margin < 0 and not fires(params, config, 0, 0, found.text)
    nearest = target.margins(np.array([found.text]), np.array([0]))[0, -1]
    assert nearest == found.margin  # that of the text that came closest


def test_the_same_seed_finds_the_same_and_units_do_not_matter_to_each_other():
    params, units = random_params(ODD), np.arange(8)
    starts = random_tokens(ODD, 8, 6)
    lowered = np.full(8, 2.5)
    lowered[5:] = 100  # never

    def run(which, seed=0):
        target = Target(params, ODD, 1, units[which], lowered[which])
        return search(target, starts[which], Budget(texts=200, patience=2), seed)

    everyone = run(units)
    assert everyone == run(units)
    woken = [f.woken for f in everyone]
    assert any(woken) and woken[5:] == [False] * 3
    for j in (0, 4, 6):
        (alone,) = run([j])
        assert alone.text == everyone[j].text and alone.tried == everyone[j].tried
        assert alone.margin == pytest.approx(everyone[j].margin, abs=1e-12)
    others = run(units, seed=1)  # other random starts
    assert [f.text for f in others[5:]] != [f.text for f in everyone[5:]]


@pytest.mark.parametrize("texts", [1, 2, 3, 50])
def test_no_more_texts_are_tried_than_the_budget_allows(texts):
    config = mr.ModelConfig(n_layers=1, n_heads=1, d_model=4, d_mlp=3, n_ctx=3, d_vocab=2)
    params, tried, judged = random_params(config), [], []
    target = Target(params, config, 0, np.array([1]), np.array([1e3]))
    judge = target.margins
    target.margins = lambda tokens, of: judged.append(len(tokens)) or judge(tokens, of)
    starts = np.zeros((1, 3), int)
    (found,) = search(target, starts, Budget(texts=texts), on_tried=tried.append)
    assert found.tried == sum(tried) == sum(judged) == texts


def test_no_swap_is_tried_twice_from_the_same_text():
    target, judged = Target(random_params(ODD), ODD, 0, np.array([1])), []

    def nothing_helps(tokens, of):
        judged.extend(map(tuple, tokens.tolist()))
        return np.arange(-6.0, 0) + np.zeros(tokens.shape)  # closest at the end, always alike

    target.margins = nothing_helps
    search(target, np.zeros((1, 6), int), Budget(texts=129))
    assert len(set(judged)) == len(judged) == 129
    assert all(np.count_nonzero(text) == 1 for text in judged[1:])


def test_a_budget_is_checked_by_name():
    with pytest.raises(UserError, match="texts: 0 is not allowed"):
        Budget(texts=0)


@pytest.mark.parametrize("config", EVERY, ids=NAMES)
def test_no_input_exceeds_the_bound_and_one_reaches_it(config):
    params, rng = random_params(config), np.random.default_rng(0)
    for l, layer in enumerate(certified_silent(params, config)):
        block = f"blocks.{l}."
        w, b = params[block + "ln2.w"], params.get(block + "ln2.b")
        W, b_in = params[block + "mlp.W_in"], params.get(block + "mlp.b_in", 0.0)

        def pre(x, w=w, b=b, W=W, b_in=b_in):
            return layernorm_forward(x, w, b, config.ln_eps)[0] @ W.T + b_in

        sizes = 10.0 ** rng.uniform(-4, 4, (5000, 1))
        seen = pre(sizes * rng.standard_normal((5000, config.d_model)))
        assert np.all(seen < layer.offset + layer.reach)
        assert np.all(seen > layer.offset - layer.reach)
        best = (W * w) - (W * w).mean(axis=1, keepdims=True)  # (F, C): for each unit an input
        reached = np.diagonal(pre(1e5 * best))
        np.testing.assert_allclose(reached, layer.offset + layer.reach, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(layer.ratio, layer.offset / layer.reach)


def test_a_unit_is_certified_where_its_bias_is_beyond_its_reach():
    config = EVERY[0]
    params = random_params(config)
    layer = certified_silent(params, config)[1]
    assert not layer.silent.any()
    beyond = layer.offset + layer.reach
    params["blocks.1.mlp.b_in"][[2, 9]] -= beyond[[2, 9]] * (1 + 1e-9)
    params["blocks.1.mlp.b_in"][[3, 8]] -= beyond[[3, 8]] * (1 - 1e-6)
    first, again = certified_silent(params, config)
    assert np.flatnonzero(again.silent).tolist() == [2, 9] and not first.silent.any()
    assert np.all(again.ratio[[2, 9]] <= -1) and np.all(again.ratio[[3, 8]] > -1)
    topk = mr.ModelConfig(**{**vars(config), "act_fn": "topk", "act_k": 5})
    assert not any(layer.silent.any() for layer in certified_silent(params, topk))
    params["blocks.0.mlp.W_in"][4] = 0  # no weights: the bias alone decides
    params["blocks.0.mlp.b_in"][4] = 0
    assert certified_silent(params, config)[0].silent[4]
    params["blocks.0.mlp.b_in"][4] = 0.1
    assert not certified_silent(params, config)[0].silent[4]


def test_thresholds_are_found_of_functions_that_are_never_zero():
    relu = activation_function("relu")
    softplus = relu._replace(forward=lambda pre: np.logaddexp(pre, 0), off=(-math.inf, 0.1))
    assert on_above(softplus) == pytest.approx(math.log(math.expm1(0.1)), abs=1e-8)
    assert on_above(relu._replace(forward=lambda pre: 1 + 0 * pre)) == -math.inf
    assert on_above(relu._replace(forward=lambda pre: 0 * pre)) == math.inf
