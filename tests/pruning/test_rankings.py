"""Scores of units against brute force, and which units go."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import ODD, random_params, random_tokens

import minirelu as mr
from minirelu.errors import UserError
from minirelu.pruning.rankings import CRITERIA, evidence, keep, keep_widths, order, scores
from minirelu.pruning.smaller import smaller


@pytest.fixture(scope="module")
def params() -> mr.Parameters:
    p = random_params(ODD, dtype=np.float32)
    p["blocks.1.mlp.W_in"][:5], p["blocks.1.mlp.b_in"][:5] = 0, -1  # silent
    return p


@pytest.fixture(scope="module")
def text() -> np.ndarray:
    return random_tokens(ODD, 6, 9)


@pytest.fixture(scope="module", params=["auto", "reference"])
def found(request, params, text):
    v = mr.Parameters(ODD)
    v.flat[:] = np.random.default_rng(3).random(v.flat.size)
    return evidence(params, text, ODD, request.param, v)


def test_scores_are_those_of_brute_force(found, params, text):
    _, acts = mr.forward(params, text[:, :-1], ODD)
    for l in range(ODD.n_layers):
        post = acts[f"blocks.{l}.mlp.hook_post"].reshape(-1, 37).astype(np.float64)
        W_out = params[f"blocks.{l}.mlp.W_out"].astype(np.float64)
        written = np.linalg.norm(post[:, :, None] * W_out, axis=2).mean(axis=0)
        of = {by: scores(found, by)[l] for by in CRITERIA}
        assert np.array_equal(of["silent"], (post > 0).any(axis=0))
        assert np.array_equal(of["frequency"], (post > 0).sum(axis=0))
        assert np.allclose(of["contribution"], written, rtol=1e-4, atol=1e-5)
        v = found.second_moment[f"blocks.{l}.mlp.W_out"].astype(np.float64)
        assert np.allclose(of["second_order"], 0.5 * (W_out**2 * v).sum(axis=1))
    assert (scores(found, "silent")[1][:5] == 0).all()


def test_first_order_is_the_slope_of_the_loss_as_a_unit_fades(found, params, text):
    exact = random_params(ODD, dtype=np.float64)
    for name, p in exact.items():
        p[...] = params[name]
    for l, j in ((0, 3), (0, 30), (1, 2), (1, 20)):
        losses = []
        for size in (1 - 1e-5, 1 + 1e-5):  # of what it writes
            faded = mr.Parameters(ODD, np.float64)
            faded.flat[:] = exact.flat
            faded[f"blocks.{l}.mlp.W_out"][j] *= size
            loss, _ = mr.loss_and_grads(faded, text[:, :-1], text[:, 1:], ODD, "reference")
            losses.append(loss)
        slope = abs(losses[1] - losses[0]) / 2e-5
        assert scores(found, "first_order")[l][j] == pytest.approx(slope, rel=1e-2, abs=1e-6)


def test_a_silent_unit_scores_zero_and_goes_first(found):
    for by in ("silent", "frequency", "contribution", "first_order"):
        of_layer = scores(found, by)
        silent = found.counts.tokens_on[1] == 0
        assert silent[:5].all() and (of_layer[1][silent] == 0).all()
        assert not keep(of_layer, silent.sum() / 37, 1)[1][silent].any()


def test_parts_of_a_text_add_up(params, text):
    long = np.concatenate([text] * 300)  # more than is read at a time
    once, many = evidence(params, text, ODD), evidence(params, long, ODD)
    assert np.array_equal(300 * once.counts.tokens_on[0], many.counts.tokens_on[0])
    assert np.allclose(once.first_order[0], many.first_order[0], rtol=1e-3, atol=1e-6)


def test_each_scope_takes_its_share():
    rng = np.random.default_rng(0)
    of_layers = [rng.random(40), rng.random(40) + 0.5, rng.random(20)]
    for share in (0, 0.25, 0.5, 1):
        each = [k.sum() for k in keep(of_layers, share)]
        assert each == [round(40 * (1 - share)), round(40 * (1 - share)), round(20 * (1 - share))]
        together = keep(of_layers, share, "global")
        assert sum(k.sum() for k in together) == round(100 * (1 - share))
        lost = [s[~k] for s, k in zip(of_layers, together, strict=True)]
        left = [s[k] for s, k in zip(of_layers, together, strict=True)]
        if 0 < share < 1:
            assert np.concatenate(lost).max() <= np.concatenate(left).min()
        assert [k.sum() for k in keep(of_layers, share, 2)] == [40, 40, round(20 * (1 - share))]


def test_equal_scores_go_in_an_order_that_the_seed_decides():
    same = [np.zeros(50)]
    assert np.array_equal(order(same, 1)[0], order(same, 1)[0])
    assert not np.array_equal(order(same, 1)[0], order(same, 2)[0])
    assert not np.array_equal(order(same, 1)[0], np.arange(50))


def test_more_of_a_share_never_brings_a_unit_back():
    of_layers = [np.random.default_rng(0).integers(0, 3, 50).astype(float)]
    masks = [keep(of_layers, share, "global")[0] for share in np.linspace(0, 1, 21)]
    assert all((later <= earlier).all() for earlier, later in zip(masks, masks[1:], strict=False))


@pytest.mark.parametrize(
    "wrong, words",
    [
        (lambda s: keep(s, 1.5), "share: 1.5 is not allowed"),
        (lambda s: keep(s, float("nan")), "share: nan"),
        (lambda s: keep(s, 0.5, "all"), "it must be each, global, or a layer from 0 to 1"),
        (lambda s: keep(s, 0.5, 2), "a layer from 0 to 1"),
        (lambda s: keep_widths(s, [3, 99]), "layer 1 has 37 hidden units; 99 of them cannot be"),
        (lambda s: keep_widths(s, [-1, 3]), "cannot be kept"),
    ],
)
def test_what_cannot_be_kept_is_refused(found, wrong, words):
    with pytest.raises(UserError, match=words):
        wrong(scores(found, "silent"))


def test_evidence_that_lacks_what_is_asked_for_says_so(params, text):
    found = evidence(params, text, ODD)
    with pytest.raises(UserError, match="second_order needs Adam's second moment"):
        scores(found, "second_order")
    with pytest.raises(UserError, match="did you mean 'first_order'"):
        scores(found, "first-order")
    with pytest.raises(UserError, match="no text to rank units on"):
        evidence(params, text[:0], ODD)


def test_moments_are_cut_like_weights(params):
    stay = [np.arange(37) % 3 == 0, np.arange(37) < 4]
    left = smaller(params, stay)
    assert left.config.d_mlp == (13, 4)
    for name, array in left.items():
        of_mlp = ".mlp." in name and not name.endswith("b_out")
        whole = params[name]
        assert np.array_equal(array, whole[stay[int(name.split(".")[1])]] if of_mlp else whole)
