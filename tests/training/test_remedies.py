"""Clipped updates and their controls; a centred MLP input is exactly that."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import new_run, quick_settings, result, stop_after

import minirelu as mr
from minirelu import compute
from minirelu.errors import UserError
from minirelu.model.activation_functions import act_fn_names
from minirelu.runs.checkpoint import new_slots
from minirelu.runs.prepare import create_run
from minirelu.text.batches import batch
from minirelu.training.remedies import clip_factors, incoming, update_sizes
from minirelu.training.schedule import learning_rate

ALL = ("unit_clip largest=0.05", "unit_shrink share=0.2", "centre keep=0.5")


def after_one_step(tmp_path, text_file, name, *intervene):
    """Rows of layer 1 before and after the first step, and the step's record."""
    run = new_run(tmp_path, text_file, name, steps=1, warmup_steps=0, intervene=intervene)
    assert mr.train(run)
    return incoming(run.params(0), 1), incoming(run.params(1), 1), run.metrics("train")[0]


def test_the_largest_updates_are_scaled_down_and_the_others_keep_their_bits(text_file, tmp_path):
    before, free, record = after_one_step(tmp_path, text_file, "free")
    assert "unit_updates_scaled" not in record
    sizes = update_sizes(before, free)
    largest = float(np.median(sizes))
    _, clipped, record = after_one_step(tmp_path, text_file, "run", f"unit_clip largest={largest}")
    too_large = sizes > largest
    assert np.array_equal(clipped[~too_large], free[~too_large])
    np.testing.assert_allclose(update_sizes(before, clipped)[too_large], largest, rtol=1e-4)
    direction = (clipped - before) * (sizes / np.minimum(sizes, largest))[:, None]
    np.testing.assert_allclose(direction, free - before, rtol=1e-3, atol=1e-6)
    assert record["unit_updates_scaled"][1] == np.mean(too_large) == 0.5


def test_the_control_scales_as_many_units_by_the_same_factors(text_file, tmp_path):
    before, free, _ = after_one_step(tmp_path, text_file, "free")
    largest = float(np.quantile(update_sizes(before, free), 0.7))
    text = f"unit_clip largest={largest} to=random"
    _, after, record = after_one_step(tmp_path, text_file, "run", text)
    factors = np.linalg.norm(after - before, axis=1) / np.linalg.norm(free - before, axis=1)
    wanted = clip_factors(before, free, largest)
    np.testing.assert_allclose(np.sort(factors), np.sort(wanted), rtol=1e-4)
    assert not np.allclose(factors, wanted, rtol=1e-2)
    assert record["unit_updates_scaled"][1] == np.mean(wanted < 1) > 0


def test_size_of_an_update_does_not_depend_on_the_scale_of_a_unit():
    rng = np.random.default_rng(0)
    before, change = rng.normal(size=(2, 5, 4))
    scale = np.array([[0.01], [1], [3], [100], [0.5]])
    np.testing.assert_allclose(
        update_sizes(scale * before, scale * (before + change)),
        update_sizes(before, before + change),
    )


def test_shrunken_updates_are_drawn_anew_at_each_step_in_the_share_asked_for(text_file, tmp_path):
    before, free, _ = after_one_step(tmp_path, text_file, "free")
    shrink = "unit_shrink share=0.25 factor=0"
    _, after, record = after_one_step(tmp_path, text_file, "run", shrink)
    stayed = (after == before).all(axis=1)
    assert np.array_equal(after[~stayed], free[~stayed])
    assert record["unit_updates_scaled"][1] == stayed.mean() and 0 < stayed.mean() < 0.6
    run = new_run(tmp_path, text_file, "long", intervene=(shrink,), seed=3)
    assert mr.train(run)
    shares = np.array([r["unit_updates_scaled"] for r in run.metrics("train")])  # (12, 2)
    assert abs(shares.mean() - 0.25) < 0.06 and len(np.unique(shares)) > 4


@pytest.mark.parametrize("by", ["auto", "reference"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_centring_trains_the_model_whose_mlps_read_their_input_minus_its_mean(
    text_file, tmp_path, by, optimizer
):
    """Against that model, trained here by the reference, with its own c in place of b_in."""
    run = new_run(
        tmp_path, text_file, steps=8, intervene=("centre keep=0.75",), compute=by,
        optimizer=optimizer, learning_rate=0.01 if optimizer == "adamw" else 0.5,
    )  # fmt: skip
    assert mr.train(run)
    config, settings = run.config, run.settings.train
    reference = quick_settings(
        text_file, **{**vars(settings), "compute": "reference", "intervene": ()}
    )
    params, slots = mr.init_params(config, settings.seed), new_slots(run.settings)
    inputs = [f"blocks.{l}.ln2.hook_normalized" for l in range(config.n_layers)]
    means = {name: np.zeros(config.d_model, np.float32) for name in inputs}
    for step in range(1, settings.steps + 1):
        tokens = batch(run.train_tokens, step, settings.batch_size, config.n_ctx, settings.seed)
        edit = {n: (lambda x, m=means[n]: x - m, lambda d, x: d) for n in inputs}
        logits, acts = mr.forward(params, tokens[:, :-1], config, edit=edit)
        _, dlogits = mr.cross_entropy(logits, tokens[:, 1:])
        grads = mr.backward(params, acts, dlogits, config, edit)
        norm, lr = compute.global_norm(grads, "reference"), learning_rate(step, settings)
        compute.update(params, grads, slots, step, lr, reference.train, norm)
        for n in inputs:
            mean = acts[n + " before edit"].mean(axis=(0, 1))
            means[n] = mean if step == 1 else 0.75 * means[n] + 0.25 * mean
    trained = run.params()
    for l, n in enumerate(inputs):
        W_in, b_in = (trained[f"blocks.{l}.mlp.{name}"] for name in ("W_in", "b_in"))
        np.testing.assert_allclose(W_in, params[f"blocks.{l}.mlp.W_in"], rtol=1e-3, atol=2e-5)
        folded = params[f"blocks.{l}.mlp.b_in"] - W_in @ means[n]
        np.testing.assert_allclose(b_in, folded, rtol=1e-3, atol=2e-5)
        assert np.abs(b_in - params[f"blocks.{l}.mlp.b_in"]).max() > 0.005  # it matters


def test_centring_needs_biases(text_file):
    tables = quick_settings(text_file, intervene=("centre",)).tables()
    tables["model"]["bias"] = False
    with pytest.raises(UserError, match="needs biases"):
        mr.Config.from_tables(tables)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("act_fn", act_fn_names())
def test_kernels_and_reference_make_the_same_steps(text_file, tmp_path, act_fn, bias):
    ended = []
    for by in ("auto", "reference"):
        given = dict(intervene=ALL if bias else ALL[:2], compute=by, micro_batches=2)
        given |= dict(optimizer="sgd", learning_rate=0.5)  # Adam would enlarge rounding in b_K
        tables = quick_settings(text_file, steps=4, **given).tables()
        tables["model"] |= {"act_fn": act_fn, "act_k": 5, "bias": bias}
        run = create_run(mr.Config.from_tables(tables), tmp_path / by)
        assert mr.train(run)
        ended.append(run.params().flat)
    np.testing.assert_allclose(*ended, rtol=1e-3, atol=1e-5)


def test_an_interrupted_run_ends_with_the_same_bits(text_file, tmp_path):
    whole = new_run(tmp_path, text_file, "whole", intervene=ALL)
    assert mr.train(whole)
    parts = new_run(tmp_path, text_file, "parts", intervene=ALL)
    while not mr.train(parts, should_stop=stop_after(5)):
        parts = mr.Run.open(parts.folder)
    assert result(parts) == result(whole)
