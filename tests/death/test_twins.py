"""Overlap of two sets: independent ones sit on the null, planted ties are seen, or explained."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from minirelu.death.twins import order_of_deaths, overlap
from minirelu.errors import UserError


def test_independent_sets_sit_on_the_hypergeometric():
    rng = np.random.default_rng(0)
    found = [overlap(rng.random(600) < 0.15, rng.random(600) < 0.3) for _ in range(400)]
    z, p = np.array([o.z for o in found]), np.array([o.p for o in found])
    assert abs(z.mean()) < 0.15
    assert 0.9 < z.std() < 1.1
    assert 0.01 < (p < 0.05).mean() < 0.08
    expected = np.mean([o.expected_jaccard for o in found])
    assert np.mean([o.jaccard for o in found]) == pytest.approx(expected, rel=0.03)


def test_overlap_equals_scipys_hypergeometric():
    rng = np.random.default_rng(1)
    a, b = rng.random(200) < 0.2, rng.random(200) < 0.4
    o, law = overlap(a, b), stats.hypergeom(200, a.sum(), b.sum())
    assert o.expected == pytest.approx(law.mean())
    assert o.z == pytest.approx((o.both - law.mean()) / law.std())
    assert o.p == pytest.approx(min(1, 2 * min(law.sf(o.both - 1), law.cdf(o.both))))
    assert o.jaccard == (a & b).sum() / (a | b).sum()


def test_a_planted_overlap_is_seen():
    rng = np.random.default_rng(2)
    a, b = rng.random(600) < 0.15, rng.random(600) < 0.15
    core = rng.random(600) < 0.05
    o = overlap(a | core, b | core)
    assert o.z > 4
    assert o.p < 1e-3
    assert o.ratio > 1.3


def test_strata_take_away_what_the_covariate_explains_and_only_that():
    """Both sets prefer units with a low margin; half of the time they also share a core."""
    rng, plain, within, with_core = np.random.default_rng(3), [], [], []
    for _ in range(80):
        margin = rng.random(2000)
        a, b = rng.random((2, 2000)) < 0.6 * (1 - margin) ** 2
        plain.append(overlap(a, b).z)
        within.append(overlap(a, b, margin, strata=20).z)
        core = rng.random(2000) < 0.05
        with_core.append(overlap(a | core, b | core, margin, strata=20).z)
    assert np.mean(plain) > 4
    assert abs(np.mean(within)) < 0.4
    assert 0.75 < np.std(within) < 1.25
    assert np.mean(with_core) > 3


def test_the_p_value_of_strata_is_that_of_drawing_within_them():
    rng = np.random.default_rng(4)
    margin = rng.random(60)
    a, b = margin < 0.5, rng.random(60) < 0.8 * (1 - margin)
    o = overlap(a, b, margin, strata=3)
    group = np.argsort(np.argsort(margin)) // 20
    drawn = np.zeros(20_000, int)
    for g in range(3):
        of_a = a[group == g]
        k = rng.permuted(np.tile(b[group == g], (20_000, 1)), axis=1)
        drawn += (k & of_a).sum(axis=1)
    assert o.expected == pytest.approx(drawn.mean(), abs=0.05)
    p = 2 * min((drawn >= o.both).mean(), (drawn <= o.both).mean())
    assert o.p == pytest.approx(min(1, p), abs=0.02)
    assert o.expected_jaccard == pytest.approx(np.mean(drawn / (o.a + o.b - drawn)), abs=0.005)


def test_the_order_of_deaths_is_scipys_spearman_over_units_dead_in_both():
    rng = np.random.default_rng(5)
    time = rng.integers(0, 30, 400)
    a, b = (np.where(rng.random(400) < 0.6, time + rng.integers(0, 20, 400), -1) for _ in range(2))
    order, both = order_of_deaths(a, b), (a >= 0) & (b >= 0)
    assert order.n == both.sum()
    assert order.rho.value == pytest.approx(stats.spearmanr(a[both], b[both]).statistic)
    assert 0.4 < order.rho.low < order.rho.value < order.rho.high < 1
    free = [order_of_deaths(a, rng.permutation(b)).rho for _ in range(200)]
    assert 0.9 < np.mean([r.low < 0 < r.high for r in free]) <= 0.99


def test_what_is_no_pair_of_twins_is_refused_plainly():
    a = np.arange(20) < 5
    with pytest.raises(UserError, match="same width"):
        overlap(a, a[:10])
    with pytest.raises(UserError, match="no unit is in the first set"):
        overlap(a & False, a)
    with pytest.raises(UserError, match="every unit is in the second set"):
        overlap(a, a | True)
    with pytest.raises(UserError, match="use fewer"):
        overlap(a, a, np.arange(20), strata=4)
    with pytest.raises(UserError, match="strata: 11"):
        overlap(a, a, np.arange(20), strata=11)
    with pytest.raises(UserError, match="does not fit 20 units"):
        overlap(a, a, np.arange(10))
    with pytest.raises(UserError, match="5 units died in both"):
        order_of_deaths(np.where(a, 3, -1), np.arange(20))
    with pytest.raises(UserError, match="no order"):
        order_of_deaths(np.full(20, 3), np.arange(20))
    with pytest.raises(UserError, match="cannot be compared"):
        order_of_deaths(np.arange(20), np.arange(19))
