"""Counts and measures against brute force on dense arrays, and their invariances."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minirelu as mr
from minirelu.model.activations import mlp_names
from minirelu.sparsity.counts import UnitCounts

CONFIG = mr.ModelConfig(2, 1, 4, d_mlp=(5, 8), n_ctx=6, d_vocab=10)


def acts_of(rng: np.random.Generator, B: int, T: int, density: float) -> dict[str, np.ndarray]:
    """Activations of which about a share ``density`` is on, and some units never."""
    acts = {}
    for name, F in zip(mlp_names(CONFIG), CONFIG.mlp_widths, strict=True):
        on = rng.random((B, T, F)) < density
        on[:, :, 0] = False
        acts[name] = np.where(on, rng.random((B, T, F)) + 0.1, 0.0)
    return acts


def part(acts: dict[str, np.ndarray], which) -> dict[str, np.ndarray]:
    return {name: a[which] for name, a in acts.items()}


def assert_same(a: UnitCounts, b: UnitCounts, but: tuple[str, ...] = ()) -> None:
    """Same integers everywhere, and so the same measures to the last bit."""
    x, y = a.to_arrays(), b.to_arrays()
    for name in x:
        if name not in but:
            np.testing.assert_array_equal(x[name], y[name], err_msg=name)
    for measure in (mr.usage, mr.in_sequence_percentile):
        np.testing.assert_array_equal(measure(a), measure(b))


cases = st.tuples(
    st.integers(1, 7), st.integers(1, 6), st.sampled_from([0.0, 0.02, 0.3, 1.0]), st.integers(0, 99)
)


@settings(max_examples=60, deadline=None)
@given(cases, st.integers(1, 30), st.sampled_from([0, 10, 50, 90, 99.5, 100]))
def test_measures_equal_brute_force(case, batch_tokens, p):
    B, T, density, seed = case
    acts = acts_of(np.random.default_rng(seed), B, T, density)
    counts = UnitCounts(CONFIG, batch_tokens)
    counts.update(acts)
    used = mr.usage(counts)
    per_batch = max(1, batch_tokens // T)  # sequences
    full = B // per_batch
    batches = [slice(i * per_batch, (i + 1) * per_batch) for i in range(full)] or [slice(None)]
    for l, name in enumerate(mlp_names(CONFIG)):
        on = acts[name] > 0
        assert used.per_token[l] == pytest.approx(on.mean())
        assert used.per_sequence[l] == pytest.approx(on.any(axis=1).mean())
        expected = np.mean([on[b].any(axis=(0, 1)).mean() for b in batches])
        assert used.per_batch[l] == pytest.approx(expected)

        frequency = on.mean(axis=1)  # (B, F)
        over_all = np.mean([np.percentile(f, p) for f in frequency])
        assert mr.in_sequence_percentile(counts, p, over="all")[l] == pytest.approx(over_all)
        over_used = [np.percentile(f[f > 0], p) for f in frequency if f.any()]
        actual = mr.in_sequence_percentile(counts, p)[l]
        assert actual == pytest.approx(np.mean(over_used)) if over_used else math.isnan(actual)

        k = np.bincount(on.sum(axis=1).ravel(), minlength=T + 1)
        assert counts.at_positions[l].tolist() == k.tolist()
        first = [int(np.argmax(u)) if u.any() else T for s in on for u in s.T]
        assert counts.first_at[l].tolist() == np.bincount(first, minlength=T + 1).tolist()
        np.testing.assert_allclose(
            counts.total[l] / 2**20, np.maximum(acts[name], 0).sum(axis=(0, 1)), atol=B * T / 2**20
        )
    assert counts.batch_size_used == (per_batch if full else B) * T


@settings(max_examples=40, deadline=None)
@given(cases, st.integers(0, 7), st.integers(1, 60))
def test_updates_and_merges_give_the_same_counts(case, cut, batch_tokens):
    B, T, density, seed = case
    acts = acts_of(np.random.default_rng(seed), B, T, density)
    whole = UnitCounts(CONFIG, batch_tokens)
    whole.update(acts)

    one_by_one = UnitCounts(CONFIG, batch_tokens)
    for b in range(B):
        one_by_one.update(part(acts, slice(b, b + 1)))
    assert_same(whole, one_by_one)

    cut = min(cut, B) // whole.sequences_per_batch * whole.sequences_per_batch  # at a whole batch
    first, second = UnitCounts(CONFIG, batch_tokens), UnitCounts(CONFIG, batch_tokens)
    for counts, which in ((first, slice(None, cut)), (second, slice(cut, None))):
        if len(range(B)[which]):
            counts.update(part(acts, which))
    merged_other_way = UnitCounts.from_arrays(
        {k: v.copy() for k, v in second.to_arrays().items()}, CONFIG
    )
    merged_other_way.merge(first)
    first.merge(second)
    assert_same(whole, first)
    assert_same(whole, merged_other_way)


def test_order_of_sequences_and_of_tokens_within_them_does_not_matter():
    rng = np.random.default_rng(0)
    acts = acts_of(rng, 6, 5, 0.2)
    a, b = UnitCounts(CONFIG), UnitCounts(CONFIG)
    a.update(acts)
    sequences, tokens = rng.permutation(6), rng.permutation(5)
    b.update({name: x[sequences][:, tokens] for name, x in acts.items()})
    assert_same(a, b, but=("first_at",))  # which of its positions a unit is first on at


@pytest.mark.parametrize("density", [0.01, 0.2, 0.9])
def test_the_three_scales_never_decrease(density):
    counts = UnitCounts(CONFIG, batch_tokens=12)
    counts.update(acts_of(np.random.default_rng(1), 8, 6, density))
    used = mr.usage(counts)
    assert np.all(used.per_token <= used.per_sequence)
    assert np.all(used.per_sequence <= used.per_batch)


def test_zero_and_nan_are_off():
    counts = UnitCounts(CONFIG)
    acts = acts_of(np.random.default_rng(0), 1, 4, 0.0)
    acts["blocks.0.mlp.hook_post"][0, :, 1:4] = [[0.0, -0.0, np.nan]]
    acts["blocks.0.mlp.hook_post"][0, 2, 4] = 5e-324
    counts.update(acts)
    assert counts.tokens_on[0].tolist() == [0, 0, 0, 0, 1]
    assert mr.usage(counts).per_token[1] == 0


def test_counts_survive_their_arrays():
    counts = UnitCounts(CONFIG, batch_tokens=12)
    counts.update(acts_of(np.random.default_rng(1), 5, 6, 0.3))
    again = UnitCounts.from_arrays(counts.to_arrays(), CONFIG)
    assert_same(counts, again)
    assert again.batch_size_used == counts.batch_size_used


def test_counts_that_cannot_be_merged_are_refused():
    acts = acts_of(np.random.default_rng(1), 3, 4, 0.3)
    a, b = UnitCounts(CONFIG, batch_tokens=16), UnitCounts(CONFIG, batch_tokens=16)
    a.update(acts)
    b.update(acts)
    with pytest.raises(ValueError, match="cut the parts at whole batches"):
        a.merge(b)
    assert a.n_sequences == 3  # nothing was added
    with pytest.raises(ValueError, match="another model or batch size"):
        a.merge(UnitCounts(CONFIG, batch_tokens=8))
    with pytest.raises(ValueError, match="sequences of 2 tokens"):
        a.update(acts_of(np.random.default_rng(1), 1, 2, 0.3))


def test_wrong_activations_are_named():
    counts = UnitCounts(CONFIG)
    acts = acts_of(np.random.default_rng(1), 3, 4, 0.3)
    with pytest.raises(ValueError, match="nothing was counted"):
        mr.usage(counts)
    with pytest.raises(ValueError, match="blocks.1.mlp.hook_post"):
        counts.update({"blocks.0.mlp.hook_post": acts["blocks.0.mlp.hook_post"]})
    with pytest.raises(ValueError, match="blocks.1.mlp.hook_post: shape"):
        counts.update({**acts, "blocks.1.mlp.hook_post": np.zeros((3, 4, 9))})
    counts.update(acts)
    wrong = (({"p": 101}, "p: 101"), ({"p": 0.05}, "in tenths"), ({"over": "some"}, "over: 'some'"))
    for settings_, word in wrong:
        with pytest.raises(ValueError, match=word):
            mr.in_sequence_percentile(counts, **settings_)
