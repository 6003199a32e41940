"""Prediction: areas and fits against independent computations, and what is held out stays out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from minirelu.death.predict import auc, leave_one_seed_out, logistic, roc
from minirelu.errors import UserError


def drawn(rng, n: int, weights, bias: float = -1.0):
    """Units whose features decide their odds of dying."""
    x = rng.normal(size=(n, len(weights)))
    return x, rng.random(n) < 1 / (1 + np.exp(-(x @ weights) - bias))


def test_auc_counts_pairs_with_ties_as_half():
    rng = np.random.default_rng(0)
    scores, died = rng.integers(0, 6, 80).astype(float), rng.random(80) < 0.3
    difference = scores[died][:, None] - scores[~died]
    assert auc(scores, died) == pytest.approx(((difference > 0) + (difference == 0) / 2).mean())
    u = stats.mannwhitneyu(scores[died], scores[~died]).statistic
    assert auc(scores, died) == pytest.approx(u / difference.size)
    assert auc(-scores, died) == pytest.approx(1 - auc(scores, died))


def test_the_area_under_the_roc_curve_is_the_auc():
    rng = np.random.default_rng(1)
    scores, died = rng.integers(0, 9, 200).astype(float), rng.random(200) < 0.3
    r = roc(scores, died)
    area = (np.diff(r.false_positive) * (r.true_positive[1:] + r.true_positive[:-1]) / 2).sum()
    assert area == pytest.approx(auc(scores, died))
    for f, t, threshold in zip(*r, strict=True):
        assert f == (scores[~died] >= threshold).mean()
        assert t == (scores[died] >= threshold).mean()


def test_logistic_regression_finds_the_weights_put_in():
    rng = np.random.default_rng(2)
    x, died = drawn(rng, 40_000, [1.5, 0.0, -0.7])
    scale = np.array([3.0, 0.01, 20.0])
    fit = logistic(x * scale + 5, died)
    np.testing.assert_allclose(fit.weights, [1.5, 0, -0.7], atol=0.06)
    np.testing.assert_allclose(fit.log_odds(x * scale + 5), x @ [1.5, 0, -0.7] - 1, atol=0.4)


def test_at_the_fit_the_gradient_of_the_penalised_loss_is_zero():
    rng = np.random.default_rng(3)
    x, died = drawn(rng, 300, [1.0, 1.0])
    for l2 in (0.0, 5.0):
        fit = logistic(x, died, l2)
        z = (x - x.mean(axis=0)) / x.std(axis=0)
        error = 1 / (1 + np.exp(-fit.log_odds(x))) - died
        np.testing.assert_allclose(z.T @ error + l2 * fit.weights, 0, atol=1e-3)
        assert error.sum() == pytest.approx(0, abs=1e-3)


def test_a_feature_that_never_changes_gets_no_weight_and_separable_deaths_a_finite_one():
    x = np.column_stack([np.full(50, 0.1), np.arange(50.0)])
    fit = logistic(x, np.arange(50) >= 25)
    assert abs(fit.weights[0]) < 1e-9
    np.testing.assert_allclose(fit.log_odds(x + [1, 0]), fit.log_odds(x), rtol=1e-6)
    assert np.isfinite(fit.weights).all()


def test_held_out_seeds_are_predicted_as_well_as_their_odds_allow():
    rng = np.random.default_rng(4)
    seeds = [drawn(rng, 3000, [1.0, 0.0]) for _ in range(4)]
    found = leave_one_seed_out(*zip(*seeds, strict=True))
    best = [auc(x[:, 0], died) for x, died in seeds]
    np.testing.assert_allclose(found, best, atol=0.01)
    alone = leave_one_seed_out([x[:, 1:] for x, _ in seeds], [d for _, d in seeds])
    assert abs(alone.mean() - 0.5) < 0.03


def test_a_seed_of_which_the_rule_is_its_own_is_not_predicted_from_itself():
    rng = np.random.default_rng(5)
    seeds = [drawn(rng, 2000, [w]) for w in (1.5, -1.5)]
    found = leave_one_seed_out(*zip(*seeds, strict=True))
    assert (found < 0.3).all()  # the other teaches the opposite


def test_a_seed_without_deaths_has_no_auc():
    rng = np.random.default_rng(6)
    seeds = [drawn(rng, 500, [1.0]) for _ in range(3)]
    seeds[1] = seeds[1][0], np.zeros(500, bool)
    found = leave_one_seed_out(*zip(*seeds, strict=True))
    assert np.isnan(found).tolist() == [False, True, False]


def test_what_cannot_be_predicted_is_refused_plainly():
    x, died = np.ones((9, 1)), np.arange(9) < 4
    with pytest.raises(UserError, match="none of 9 units died"):
        auc(x[:, 0], died & False)
    with pytest.raises(UserError, match="all of 9 units died"):
        roc(x[:, 0], died | True)
    with pytest.raises(UserError, match="feature 0 has values"):
        logistic(x * np.nan, died)
    with pytest.raises(UserError, match="1 seeds"):
        leave_one_seed_out([x], [died])
