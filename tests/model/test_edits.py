"""Reaching in: edited activations are used, and the backward is right for them."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import ODD, random_params, random_tokens

import minirelu as mr
from minirelu.model.activations import activation_names
from minirelu.model.hooks import BEFORE

TOKENS, TARGETS = random_tokens(ODD, 2, 7, seed=4), random_tokens(ODD, 2, 7, seed=5)
NUMBERS = [name for name in activation_names(ODD) if name != "tokens"]


def loss_of(params, edit) -> float:
    return mr.cross_entropy(mr.forward(params, TOKENS, ODD, edit=edit)[0], TARGETS)[0]


def check_gradient(params, edit, name: str) -> None:
    """The hand-written gradient against a directional difference, through all parameters."""
    logits, acts = mr.forward(params, TOKENS, ODD, edit=edit)
    dlogits = mr.cross_entropy(logits, TARGETS)[1]
    grads = mr.backward(params, acts, dlogits, ODD, edit=edit)
    rng = np.random.default_rng(0)
    for _ in range(3):
        direction = rng.normal(size=params.flat.size)
        direction /= np.linalg.norm(direction)
        before, h = params.flat.copy(), 1e-5
        params.flat[:] = before + h * direction
        above = loss_of(params, edit)
        params.flat[:] = before - h * direction
        below = loss_of(params, edit)
        params.flat[:] = before
        numerical, analytical = (above - below) / (2 * h), grads.flat @ direction
        size = np.linalg.norm(grads.flat) / np.sqrt(params.flat.size)
        assert abs(numerical - analytical) < 1e-5 * max(abs(numerical), size), name


@pytest.mark.parametrize("name", NUMBERS)
def test_an_edit_without_backward_is_a_constant(name):
    """No gradient goes through it: the loss depends on the parameters in all other ways only."""
    params = random_params(ODD, seed=3)
    _, acts = mr.forward(params, TOKENS, ODD)
    noise = np.random.default_rng(1).normal(1, 0.2, acts[name].shape)
    constant = np.where(np.isfinite(acts[name]), acts[name] * noise, -np.inf)
    check_gradient(params, {name: lambda value: constant}, name)


@pytest.mark.parametrize("name", NUMBERS)
def test_an_edit_with_its_backward_passes_the_gradient_on(name):
    params = random_params(ODD, seed=3)

    def edit(value):
        return value + 0.3 * np.sin(value) if np.isfinite(value).all() else 1.3 * value

    def edit_backward(d, before):
        return d * (1 + 0.3 * np.cos(before)) if np.isfinite(before).all() else 1.3 * d

    check_gradient(params, {name: (edit, edit_backward)}, name)


def test_several_edits_work_together():
    params = random_params(ODD, seed=3)
    half = (lambda value: value / 2, lambda d, before: d / 2)
    edit = {
        "blocks.0.attn.hook_pattern": half, "blocks.1.ln2.hook_scale": half,
        "blocks.1.mlp.hook_post": np.zeros_like, "ln_final.hook_normalized": half,
    }  # fmt: skip
    check_gradient(params, edit, "several")


def test_silencing_units_equals_a_model_without_them():
    """Against a second model, made by hand: one whose W_out rows are 0."""
    params, units = random_params(ODD), [0, 5, 36]

    def silence(post):
        post[..., units] = 0  # in place: allowed, since an edit gets a copy
        return post

    logits, acts = mr.forward(params, TOKENS, ODD, edit={"blocks.1.mlp.hook_post": silence})
    other = random_params(ODD)
    other["blocks.1.mlp.W_out"][units] = 0
    np.testing.assert_allclose(logits, mr.forward(other, TOKENS, ODD)[0], rtol=1e-12)
    assert not acts["blocks.1.mlp.hook_post"][..., units].any()
    assert acts["blocks.1.mlp.hook_post" + BEFORE][..., units].any()


def test_another_token_or_position_is_another_input():
    params = random_params(ODD)
    other = TOKENS.copy()
    other[0, 2] = 17

    def exchange(tokens):
        tokens[0, 2] = 17
        return tokens

    logits, acts = mr.forward(params, TOKENS, ODD, edit={"tokens": exchange})
    np.testing.assert_array_equal(logits, mr.forward(params, other, ODD)[0])
    dlogits = mr.cross_entropy(logits, TARGETS)[1]
    grads = mr.backward(params, acts, dlogits, ODD, edit={"tokens": exchange})
    _, other_acts = mr.forward(params, other, ODD)
    np.testing.assert_array_equal(grads.flat, mr.backward(params, other_acts, dlogits, ODD).flat)


def test_patching_every_layer_s_input_with_another_runs_gives_that_run():
    params, other = random_params(ODD), random_tokens(ODD, 2, 7, seed=9)
    logits, acts = mr.forward(params, other, ODD)
    patch = {"blocks.0.hook_resid_pre": lambda x: acts["blocks.0.hook_resid_pre"]}
    np.testing.assert_array_equal(mr.forward(params, TOKENS, ODD, edit=patch)[0], logits)


def test_edits_do_not_affect_later_calls():
    params = random_params(ODD)
    before = mr.forward(params, TOKENS, ODD)[0]
    mr.forward(params, TOKENS, ODD, edit={"blocks.0.hook_attn_out": np.zeros_like})
    np.testing.assert_array_equal(mr.forward(params, TOKENS, ODD)[0], before)


@pytest.mark.parametrize(
    "edit, words",
    [
        ({"blocks.0.mlp.hook_pots": np.zeros_like}, "did you mean 'blocks.0.mlp.hook_post'"),
        ({"hook_embed": lambda x: x[:1]}, "returned shape (1, 7, 12)"),
        ({"hook_embed": lambda x: x.astype(np.float32)}, "of float32; it must return"),
        ({"hook_embed": lambda x: None}, "returned NoneType"),
        ({"hook_embed": 3}, "give a function, or a pair"),
        ({"tokens": lambda x: x + 1000}, "edit of 'tokens': values from"),
    ],
)
def test_wrong_edits_are_named(edit, words):
    with pytest.raises(ValueError) as e:
        mr.forward(random_params(ODD), TOKENS, ODD, edit=edit)
    assert words in str(e.value)


def test_backward_requires_the_forward_s_edits():
    params, edit = random_params(ODD), {"hook_embed": np.zeros_like}
    logits, acts = mr.forward(params, TOKENS, ODD, edit=edit)
    with pytest.raises(ValueError, match="'hook_embed' was edited in the forward"):
        mr.backward(params, acts, logits, ODD)
    _, acts = mr.forward(params, TOKENS, ODD)
    with pytest.raises(ValueError, match="hook_embed before edit"):
        mr.backward(params, acts, logits, ODD, edit=edit)
    wrong = {"hook_embed": (np.zeros_like, lambda d, before: d[:1])}
    logits, acts = mr.forward(params, TOKENS, ODD, edit=wrong)
    with pytest.raises(ValueError, match="backward of the edit of 'hook_embed'"):
        mr.backward(params, acts, logits, ODD, edit=wrong)
