"""The measures beyond usage, against brute force and known answers."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import ODD, random_params, random_tokens
from hypothesis import given, settings
from hypothesis import strategies as st

import minirelu as mr
from minirelu.sparsity.counts import UnitCounts
from minirelu.sparsity.dormancy import dormancy_scores, dormant_share
from minirelu.sparsity.drift import drift
from minirelu.sparsity.frequency import firing_frequency, in_sequence_distribution
from minirelu.sparsity.measures import summary
from minirelu.sparsity.rarefaction import chao1, rarefaction
from minirelu.sparsity.reuse import aggregated_sparsity
from minirelu.sparsity.usage import first_and_last, in_sequence_percentile, level_ratios
from minirelu.specificity.layers import NUMBERS

F = 7
CONFIG = mr.ModelConfig(1, 1, 4, d_mlp=F, n_ctx=6, d_vocab=10)
NAME = "blocks.0.mlp.hook_post"


def made(B: int, T: int, density: float, seed: int) -> tuple[np.ndarray, UnitCounts]:
    """Activations (B, T, F), unit 0 always silent, and their counts."""
    rng = np.random.default_rng(seed)
    post = np.where(rng.random((B, T, F)) < density, rng.random((B, T, F)) + 0.1, 0.0)
    post[:, :, 0] = 0
    counts = UnitCounts(CONFIG)
    counts.update({NAME: post})
    return post, counts


cases = st.tuples(
    st.integers(1, 5), st.integers(1, 6), st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.integers(0, 99)
)


@settings(max_examples=50, deadline=None)
@given(cases)
def test_frequencies_equal_brute_force(case):
    post, counts = made(*case)
    on = post > 0
    np.testing.assert_allclose(firing_frequency(counts)[0], on.mean(axis=(0, 1)))
    k, T = on.sum(axis=1).ravel(), post.shape[1]
    expected = [np.mean(k == i) for i in range(T + 1)]
    np.testing.assert_allclose(in_sequence_distribution(counts)[0], expected)


@settings(max_examples=50, deadline=None)
@given(cases)
def test_rarefaction_is_the_mean_over_all_choices(case):
    post, counts = made(*case)
    S, T = post.shape[:2]
    r = rarefaction(counts, points=50)
    assert r.tokens.tolist() == [T * m for m in range(1, S + 1)]
    in_sequences, tokens_on = (post > 0).any(axis=1), (post > 0).sum(axis=(0, 1))
    for i, m in enumerate(range(1, S + 1)):
        picks = itertools.combinations(range(S), m)
        seen = np.mean([in_sequences[list(pick)].any(axis=0).mean() for pick in picks])
        assert r.seen[0, i] == pytest.approx(seen)
        # of all ways to pick m * T of the S * T tokens, those that miss a unit on at k of them
        ways = math.comb(S * T, m * T)
        missed = [math.comb(S * T - int(k), m * T) / ways for k in tokens_on]
        assert r.shuffled[0, i] == pytest.approx(1 - np.mean(missed))
        alone = (1 - tokens_on / (S * T)) ** (m * T)
        assert r.independent[0, i] == pytest.approx(1 - alone.mean())
    assert r.seen[0, -1] == pytest.approx(np.mean(tokens_on > 0))


def test_rarefaction_of_much_text_is_exact_enough():
    counts = UnitCounts(CONFIG)
    counts.update({NAME: np.ones((1, 6, F))})
    counts.n_sequences, counts.sequence_length = 40_000, 256
    for k in (counts.tokens_on[0], counts.sequences_on[0]):
        k[:] = [0, 1, 2, 3, 100, 39_999, 40_000]
    r = rarefaction(counts, points=3)
    first = [0, 1, 2, 3, 100, 39_999, 40_000]
    assert r.seen[0, 0] == pytest.approx(np.mean(first) / 40_000, rel=1e-6)
    assert r.seen[0, -1] == pytest.approx(6 / 7, rel=1e-12)


@pytest.mark.parametrize(
    "on_in, estimate",
    [
        ([0, 0, 1, 1, 2, 3, 3], 6.0 + 1.0),  # 5 seen, f1 = 2, f2 = 1: 5 + 4/2, which is F
        ([0, 0, 0, 0, 1, 2, 2], 3 + 1 / 4),
        ([0, 0, 0, 0, 0, 3, 1], 2.0),  # f2 = 0: f1 (f1 - 1) / 2 is 0
        ([0, 0, 0, 0, 1, 1, 3], 3 + 1.0),
        ([1, 1, 1, 1, 1, 1, 2], 7.0),  # never more than there are
        ([0] * 7, 0.0),
    ],
)
def test_chao1_by_hand(on_in, estimate):
    post = np.zeros((3, 2, F))
    for j, n in enumerate(on_in):
        post[:n, 0, j] = 1
    counts = UnitCounts(CONFIG)
    counts.update({NAME: post})
    assert chao1(counts).estimate[0] == estimate
    assert chao1(counts).seen[0] == np.count_nonzero(on_in)


@settings(max_examples=50, deadline=None)
@given(cases)
def test_reuse_equals_brute_force(case):
    post, counts = made(*case)
    on, T = post > 0, post.shape[1]
    actual = aggregated_sparsity(counts)
    for t in range(1, T + 1):
        assert actual.unused[0, t - 1] == pytest.approx(1 - on[:, :t].any(axis=1).mean())
        assert actual.random[0, t - 1] == pytest.approx((1 - on.mean()) ** t)
    assert np.all(np.diff(actual.unused) <= 1e-12)


def test_units_that_fire_at_random_are_reused_at_random():
    on = np.random.default_rng(0).random((400, 6, F)) < 0.2
    counts = UnitCounts(CONFIG)
    counts.update({NAME: on.astype(float)})
    actual = aggregated_sparsity(counts)
    np.testing.assert_allclose(actual.unused, actual.random, atol=0.03)


@settings(max_examples=50, deadline=None)
@given(cases, st.sampled_from([0, 0.025, 0.5, 1, 2]))
def test_dormancy_equals_brute_force(case, tau):
    post, counts = made(*case)
    mean = post.mean(axis=(0, 1))
    if not mean.any():
        assert np.isnan(dormancy_scores(counts)[0]).all() and dormant_share(counts, tau)[0] == 1
        return
    scores = mean / mean.mean()
    np.testing.assert_allclose(dormancy_scores(counts)[0], scores, atol=1e-4)
    if np.abs(scores - tau)[scores > 0].min() > 1e-4:
        assert dormant_share(counts, tau)[0] == pytest.approx(np.mean(scores <= tau))


@settings(max_examples=30, deadline=None)
@given(cases)
def test_level_ratios_by_definition(case):
    post, counts = made(*case)
    on = post > 0
    ratios = level_ratios(counts)
    if on.any():
        assert ratios.token_in_sequence[0] == pytest.approx(on.mean() / on.any(axis=1).mean())
        batch = on.any(axis=(0, 1)).mean()
        assert ratios.sequence_in_batch[0] == pytest.approx(on.any(axis=1).mean() / batch)
    else:
        assert np.isnan(ratios).all()


def test_measures_where_one_unit_is_on_at_one_token():
    post = np.zeros((2, 3, F))
    post[1, 2, 4] = 2.5
    counts = UnitCounts(CONFIG)
    counts.update({NAME: post})
    actual = summary(counts)
    assert actual["per_token"] == [pytest.approx(1 / 42)]
    assert actual["per_sequence"] == [pytest.approx(1 / 14)]
    assert actual["per_batch"] == [pytest.approx(1 / 7)]
    assert actual["silent_units"] == [6] and actual["units"] == [7]
    assert actual["p95_in_sequence_used"] == [pytest.approx(1 / 3)]  # of the one sequence
    assert actual["median_in_sequence_all"] == [0]
    assert actual["dormant_share"] == [pytest.approx(6 / 7)]


def test_percentiles_with_ties_by_hand():
    """Units on at 1, 1, 1, 3, 3 and 4 of 4 positions."""
    post = np.zeros((1, 4, F))
    for j, k in enumerate([0, 1, 1, 1, 3, 3, 4]):
        post[0, :k, j] = 1
    counts = UnitCounts(CONFIG)
    counts.update({NAME: post})
    k = np.array([1, 1, 1, 3, 3, 4]) / 4
    for p in (0, 12.5, 40, 50, 60, 99.9, 100):
        assert in_sequence_percentile(counts, p)[0] == pytest.approx(np.percentile(k, p)), p
        with_silent = np.percentile([0, *k], p)
        assert in_sequence_percentile(counts, p, "all")[0] == pytest.approx(with_silent), p


def test_first_and_last_layer_by_hand():
    ends = first_and_last(np.array([0.5, 0.25]))
    assert math.isnan(ends.middle) and ends.last_over_first == 0.5
    assert math.isnan(first_and_last(np.array([0.0, 0.1])).last_over_first)


@pytest.mark.parametrize("bias", [True, False])
def test_drift_equals_means_of_activations_and_gradients(bias):
    config = dataclasses.replace(ODD, bias=bias)
    params = random_params(config)
    sequences = random_tokens(config, 11, 10)  # more than one part
    tokens, targets = sequences[:, :-1], sequences[:, 1:]
    actual = drift(params, sequences, config)
    logits, acts = mr.forward(params, tokens, config)
    _, dlogits = mr.cross_entropy(logits, targets)
    for l in range(config.n_layers):
        block = f"blocks.{l}.mlp."
        pre = acts[block + "hook_pre"]
        assert actual.mean_pre[l] == pytest.approx(pre.mean(), rel=1e-9)
        assert actual.mean_W_in[l] == pytest.approx(params[block + "W_in"].mean(), rel=1e-9)
        if not bias:
            assert actual.mean_b_in[l] == 0
            continue
        assert actual.mean_b_in[l] == pytest.approx(params[block + "b_in"].mean(), rel=1e-9)
        # shifting all pre-activations of the layer that are on, by its bias: d loss / d shift
        grads = mr.backward(params, acts, dlogits, config)
        summed_loss = grads[block + "b_in"].sum() * tokens.size
        assert actual.mean_grad_on[l] == pytest.approx(summed_loss / (pre > 0).sum(), rel=1e-9)


def test_every_measure_refuses_empty_counts():
    empty = UnitCounts(CONFIG)
    for measure in (firing_frequency, in_sequence_distribution, rarefaction, chao1, level_ratios,
                    aggregated_sparsity, dormancy_scores, dormant_share, summary,
                    in_sequence_percentile):  # fmt: skip
        with pytest.raises(ValueError, match="nothing was counted"):
            measure(empty)
    _, counts = made(2, 3, 0.5, 0)
    with pytest.raises(ValueError, match="points: 0"):
        rarefaction(counts, 0)
    with pytest.raises(ValueError, match="tau: -1"):
        dormant_share(counts, -1)


def test_the_page_of_measures_names_them_all():
    page = Path(__file__).parents[2] / "tutorials/measures.md"
    text = page.read_text(encoding="utf-8")
    _, counts = made(2, 3, 0.5, 0)
    for name in summary(counts):
        if name != "units" and not name.startswith("p"):
            assert f"`{name}`" in text, name
    for name in ("p5_in_sequence_used", "p5_in_sequence_all", "firing_frequency", "rarefaction",
                 "in_sequence_distribution", "aggregated_sparsity", "drift"):  # fmt: skip
        assert f"`{name}`" in text, name
    for name in (*NUMBERS, "lift", "coverage", "direct_effects", "last_minus_first"):
        assert f"`{name}`" in text, name
    for link in re.findall(r"\]\((\.\./[^)]+)\)", text):
        assert (page.parent / link).exists(), link
    for anchor in re.findall(r"\]\(#([^)]+)\)", text):
        assert re.search(rf"^## {anchor}$", text, re.IGNORECASE | re.MULTILINE), anchor
