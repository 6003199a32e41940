"""The smaller model against the whole one with units held at 0; loss, accuracy, curves, needs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from helpers import ODD, random_params, random_tokens

import minirelu as mr
from minirelu.compute import evaluate
from minirelu.errors import UserError
from minirelu.pruning.curves import curve, quality, removable
from minirelu.pruning.needs import units_needed
from minirelu.pruning.rankings import evidence, keep, scores
from minirelu.pruning.smaller import smaller, smaller_config

MASKS = {
    "some": [np.arange(37) % 3 > 0, np.arange(37) < 5],
    "one": [np.arange(37) == 7, np.ones(37, bool)],
    "all of a layer": [np.zeros(37, bool), np.arange(37) % 2 == 0],
    "all": [np.zeros(37, bool), np.zeros(37, bool)],
    "none": [np.ones(37, bool), np.ones(37, bool)],
}


def held_at_zero(stay):
    return {
        f"blocks.{l}.mlp.hook_post": lambda post, stays=stays: post * stays
        for l, stays in enumerate(stay)
    }


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("act_fn", ["relu", "relu2", "leaky_relu", "gelu"])
@pytest.mark.parametrize("name", MASKS)
def test_the_smaller_model_computes_what_the_masked_one_does(name, act_fn, bias):
    config = dataclasses.replace(ODD, act_fn=act_fn, bias=bias)
    params, stay = random_params(config), MASKS[name]
    tokens, targets = random_tokens(config, 2, 9), random_tokens(config, 2, 9, seed=1)
    left = smaller(params, stay)
    masked, _ = mr.forward(params, tokens, config, edit=held_at_zero(stay))
    logits, _ = mr.forward(left, tokens, left.config)
    assert np.allclose(logits, masked, rtol=1e-12, atol=1e-12)

    _, acts = mr.forward(params, tokens, config, edit=held_at_zero(stay))
    loss, dlogits = mr.model.cross_entropy.cross_entropy(masked, targets)
    of_left, grads = mr.loss_and_grads(left, tokens, targets, left.config, "reference")
    assert of_left == pytest.approx(loss, rel=1e-12)
    assert np.isfinite(grads.flat).all()


@pytest.mark.parametrize("compute", ["dense", "sparse", "reference"])
@pytest.mark.parametrize("name", MASKS)
def test_every_route_computes_the_smaller_model(name, compute):
    params = smaller(random_params(ODD, dtype=np.float32), MASKS[name])
    tokens = random_tokens(ODD, 3, 9)
    expected, _ = mr.forward(params, tokens, params.config)
    seen = []
    nats, activity = evaluate(
        params, tokens, tokens, params.config, compute, on_logits=lambda x: seen.append(x.copy())
    )
    assert np.allclose(seen[0], expected, rtol=1e-3, atol=1e-3)
    assert [a.on.shape[1] for a in activity] == list(params.config.mlp_widths)


def test_removing_silent_units_changes_nothing_but_rounding():
    params, text = random_params(ODD, dtype=np.float32), random_tokens(ODD, 4, 9)
    for l, silent in ((0, slice(0, 12)), (1, slice(20, 37))):
        params[f"blocks.{l}.mlp.b_in"][silent] = -100
    found = evidence(params, text, ODD)
    of_layers = scores(found, "silent")
    silent = [int((s == 0).sum()) for s in of_layers]
    assert silent[0] >= 12 and silent[1] >= 17
    stay = [s > 0 for s in of_layers]
    whole, left = quality(params, text, ODD), smaller(params, stay)
    pruned = quality(left, text, left.config)
    assert pruned.loss == pytest.approx(whole.loss, rel=1e-6)
    assert pruned.accuracy == whole.accuracy
    logits, _ = mr.forward(params, text[:, :-1], ODD)
    after, _ = mr.forward(left, text[:, :-1], left.config)
    assert np.abs(after - logits).max() < 1e-4
    stay[0][np.flatnonzero(stay[0])[0]] = False  # one that is not silent does change it
    fewer = smaller(params, stay)
    assert abs(quality(fewer, text, fewer.config).loss - whole.loss) > 1e-5


def test_accuracy_is_how_often_the_likeliest_token_came():
    params, text = random_params(ODD, dtype=np.float32), random_tokens(ODD, 500, 9)
    logits, _ = mr.forward(params, text[:, :-1], ODD)
    text[:, 1:] = np.where(random_tokens(ODD, 500, 8) % 2, logits.argmax(axis=-1), text[:, 1:])
    # inputs have changed with the targets: what is likeliest is asked anew
    expected = logits.argmax(axis=-1) == text[:, 1:]  # inputs have changed: measure anew
    logits, _ = mr.forward(params, text[:, :-1], ODD)
    expected = (logits.argmax(axis=-1) == text[:, 1:]).mean()
    for compute in ("auto", "reference"):
        assert quality(params, text, ODD, compute).accuracy == pytest.approx(expected, abs=1e-3)
    assert 0 < expected < 1


def test_topk_keeps_room_for_its_units():
    config = dataclasses.replace(ODD, act_fn="topk", act_k=6)
    assert smaller_config(config, [np.arange(37) < 6] * 2).d_mlp == 6
    with pytest.raises(UserError, match="keeps 6 units on at each token; layer 1 would be left"):
        smaller_config(config, [np.ones(37, bool), np.arange(37) < 5])


def test_masks_of_another_model_are_refused():
    for wrong in ([np.ones(37, bool)], [np.ones(36, bool)] * 2):
        with pytest.raises(UserError, match=r"the model has \(37, 37\)"):
            smaller(random_params(ODD), wrong)


def test_a_curve_measures_each_smaller_model():
    params, text = random_params(ODD, dtype=np.float32), random_tokens(ODD, 5, 9)
    of_layers = scores(evidence(params, text, ODD), "contribution")
    for scope in ("each", "global", 1):
        points = curve(params, of_layers, text, scope, shares=(0.3, 1.0))
        for point in points:
            left = smaller(params, keep(of_layers, point["share"], scope))
            assert point["loss"] == pytest.approx(quality(left, text, left.config).loss)
            assert point["widths"] == [int(k.sum()) for k in keep(of_layers, point["share"], scope)]
    assert points[-1]["widths"] == [37, 0]


def test_what_is_removable_ends_where_the_loss_first_crosses():
    def points(*losses):
        return [{"share": s, "loss": x} for s, x in zip((0.25, 0.5, 1.0), losses, strict=True)]

    assert removable(points(2.0, 2.0, 2.0), 2.0, 0.01) == 1.0
    assert removable(points(2.04, 2.5, 3.0), 2.0, 0.01) == pytest.approx(0.125)
    assert removable(points(1.9, 2.1, 1.5), 2.0, 0.0) == pytest.approx(0.375)  # and not 1.0


@pytest.mark.parametrize("scope", [0, 1, "each", "global"])
def test_needs_are_the_fewest_units_within_the_limit(scope):
    params, text = random_params(ODD, dtype=np.float32), random_tokens(ODD, 20, 9)
    of_layers = scores(evidence(params, text, ODD), "contribution")
    base = quality(params, text, ODD).loss

    def loss_at(removed: int) -> float:
        left = smaller(params, keep(of_layers, removed / 64, scope))
        return quality(left, text, left.config).loss

    limit = (loss_at(40) / base - 1) if loss_at(40) > base else 0.02
    needed = units_needed(params, of_layers, text, scope, base, limit)
    shapes = {n: [int(k.sum()) for k in keep(of_layers, n / 64, scope)] for n in range(65)}
    n = max(n for n, shape in shapes.items() if shape == needed)
    assert loss_at(n) <= base * (1 + max(limit, 1e-6))
    assert n == 64 or loss_at(n + 1) > base * (1 + limit) or shapes[n + 1] == needed
