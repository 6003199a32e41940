"""Mutual information against closed forms, brute force and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minirelu.specificity.information import cells, effective_number, information
from minirelu.specificity.variables import START, read_text, variable


def found(on: np.ndarray, codes: np.ndarray):
    """(information, effective number) of each unit of a pattern (U, N) with values (N,)."""
    of, (unit, place) = variable(codes), np.nonzero(on)
    n_on = on.sum(axis=1)
    each = cells(unit, place, len(on), of)
    return information(each, of, n_on), effective_number(each, n_on)


def test_information_is_that_of_a_channel():
    """On at 90 % of one value and at 20 % of the other: H(on) - H(on | value), by hand."""
    codes = np.repeat([0, 1], [30_000, 70_000])
    on = np.concatenate([np.arange(30_000) < 27_000, np.arange(70_000) < 14_000])
    entropy = lambda p: -p * math.log(p) - (1 - p) * math.log(1 - p)  # noqa: E731
    exact = entropy(0.41) - 0.3 * entropy(0.9) - 0.7 * entropy(0.2)
    # of 2 and 2 values all 4 pairs occur: (2 + 2 - 4 - 1) / 2N
    assert found(on[None], codes)[0] == pytest.approx(exact - 1 / 200_000, abs=1e-12)


def test_position_has_voitas_formula():
    T, S = 8, 500
    position = np.tile(np.arange(T), S)
    f = np.round(np.linspace(0.1, 0.9, T) * S) / S
    on = np.stack([np.arange(S) < round(S * p) for p in f], axis=1).ravel()
    mean = on.mean()
    terms = [p * math.log(p / mean) + (1 - p) * math.log((1 - p) / (1 - mean)) for p in f]
    assert found(on[None], position)[0] == pytest.approx(np.mean(terms) - (T - 1) / (2 * S * T))


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 60), values=st.integers(1, 9), rate=st.sampled_from([0, 0.05, 0.5, 0.95, 1]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_information_equals_brute_force(n, values, rate, seed):
    rng = np.random.default_rng(seed)
    codes, on = rng.integers(0, values, n), rng.random((3, n)) < rate
    information_found, numbers = found(on, codes)
    for j in range(3):

        def corrected(*columns):
            _, counts = np.unique(np.stack(columns), axis=1, return_counts=True)
            p = counts / n
            return -(p * np.log(p)).sum() + (len(p) - 1) / (2 * n)

        exact = corrected(codes) + corrected(on[j]) - corrected(codes, on[j])
        assert information_found[j] == pytest.approx(exact, abs=1e-12)
        p = np.bincount(codes[on[j]]) / max(1, on[j].sum())
        entropy = -(p[p > 0] * np.log(p[p > 0])).sum()
        assert numbers[j] == pytest.approx(math.exp(entropy) if on[j].any() else 0)


@pytest.mark.parametrize("dependent", [False, True])
def test_correction_takes_out_the_bias_that_simulation_shows(dependent):
    """1000 texts of 400 tokens, 8 values: the plain estimate is 7/800 too large on average."""
    rng = np.random.default_rng(0)
    N, X, units = 400, 8, 1000
    codes = np.tile(np.arange(X), N // X)
    f = np.linspace(0.2, 0.8, X) if dependent else np.full(X, 0.4)
    mean = f.mean()
    exact = np.mean(f * np.log(f / mean) + (1 - f) * np.log((1 - f) / (1 - mean)))
    on = rng.random((units, N)) < f[codes]
    values, _ = found(on, codes)
    error = values.std() / math.sqrt(units)
    assert abs(values.mean() - exact) < 4 * error
    plain = values + (X - 1) / (2 * N)  # all pairs occur
    assert plain.mean() - exact > 10 * error


def test_a_text_says_what_stands_around_each_token():
    rng = np.random.default_rng(0)
    sequences = rng.integers(0, 5, (7, 6))
    text = read_text(sequences)
    S, T = 7, 5
    assert (text.n_sequences, text.sequence_length, text.n_tokens) == (S, T, 35)
    for s in range(S):
        for t in range(T):
            i, row = s * T + t, [START, START, *sequences[s]]
            values = {name: v.labels[v.codes[i]].tolist() for name, v in text.variables.items()}
            assert values == {
                "token": [row[t + 2]], "previous": [row[t + 1]], "next": [row[t + 3]],
                "position": [t],
            }  # fmt: skip
            grams = [gram.labels[gram.codes[i]].tolist() for gram in text.grams]
            assert grams == [row[t + 2 : t + 3], row[t + 1 : t + 3], row[t : t + 3]]
    for of in (*text.variables.values(), *text.grams):
        np.testing.assert_array_equal(np.bincount(of.codes), of.n)
