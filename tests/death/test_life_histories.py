"""Deaths, revivals and false deaths against a plain reading of each unit's records."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from minirelu.death.life_histories import life_histories
from minirelu.errors import UserError
from minirelu.intervals import count_interval, over_seeds, share_interval, silence_bound


def read_one(on: list[bool], other: list[bool], successive: int):
    """The definition, word by word, for one unit: deaths (low, high, back), false deaths."""
    P, p, deaths, false = len(on), 0, [], 0
    while p < P:
        if on[p]:
            p += 1
            continue
        start = p
        while p < P and not on[p]:
            p += 1
        if start == 0 or p - start < successive:
            continue
        last = start + successive - 1
        back = p if p < P else -1
        if not other[last]:
            deaths.append((start - 1, start, back))
            continue
        false += 1
        while last < p and other[last]:
            last += 1
        if last < p:
            deaths.append((last - 1, last, back))
    return deaths, false


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(0, 12), st.floats(0.05, 0.95))
def test_life_histories_equal_a_plain_reading_of_each_unit(seed, successive, more, share):
    rng = np.random.default_rng(seed)
    P, F = successive + 1 + more, 7
    on, other = rng.random((2, P, F)) < share
    lives = life_histories(np.arange(P) * 5, on * 3, other * 2, 64, successive)
    found = list(zip(*(column.tolist() for column in lives.deaths), strict=True))
    dead = np.zeros((P, F), bool)
    for f in range(F):
        deaths, false = read_one(on[:, f].tolist(), other[:, f].tolist(), successive)
        assert [d[1:] for d in found if d[0] == f] == deaths
        assert lives.unconfirmed[f] == false
        assert lives.n_deaths[f] == len(deaths)
        assert lives.n_revivals[f] == sum(back >= 0 for _, _, back in deaths)
        assert lives.died[f] == bool(deaths)
        first = deaths[0] if deaths else (-1, -1, -1)
        assert (lives.first.low[f], lives.first.high[f], lives.first.back[f]) == first
        for _, high, back in deaths:
            dead[high : back if back >= 0 else P, f] = True
        seen = np.flatnonzero(on[:, f] | other[:, f])
        assert lives.last_alive[f] == (seen[-1] if len(seen) else -1)
    np.testing.assert_array_equal(lives.dead, dead)
    np.testing.assert_array_equal(lives.born_silent, ~on[0])


def test_units_that_only_look_dead_on_the_probe_are_false_deaths():
    """Rare units, on in 2 % of sequences: 32 sequences often miss them, 512 never do."""
    rng = np.random.default_rng(1)
    P = 60
    rate = np.repeat([0.02, 0.5, 0.5], [100, 200, 100])
    rate = np.where(np.arange(P)[:, None] < 30, rate, np.r_[rate[:300], np.zeros(100)])
    on, other = rng.binomial(32, rate), rng.binomial(512, rate)
    lives = life_histories(np.arange(P), on, other, 512)
    assert lives.died[300:].all()
    assert not lives.died[:300].any()
    assert (lives.first.high[300:] == 30).all()
    assert lives.unconfirmed[:100].sum() > 100
    assert lives.unconfirmed[100:].sum() == 0
    assert lives.false_death_rate.value == lives.unconfirmed.sum() / lives.candidates


def test_without_candidates_the_false_death_rate_is_unknown_not_zero():
    on = np.ones((5, 3), int)
    lives = life_histories(np.arange(5), on, on, 64)
    assert np.isnan(lives.false_death_rate.value)
    assert not lives.died.any()


@pytest.mark.parametrize(
    ("P", "successive", "words"),
    [(3, 3, "4 or more"), (1, 1, "2 or more"), (9, 0, "successive: 0")],
)
def test_too_few_records_for_a_death_are_refused_plainly(P, successive, words):
    on = np.ones((P, 2), int)
    with pytest.raises(UserError, match=words):
        life_histories(np.arange(P), on, on, 64, successive)


def test_arrays_of_other_shapes_are_refused():
    on = np.ones((5, 2), int)
    with pytest.raises(UserError, match="do not fit"):
        life_histories(np.arange(4), on, on, 64)
    with pytest.raises(UserError, match="do not fit"):
        life_histories(np.arange(5), on, on[:, :1], 64)


def test_intervals_equal_those_of_scipy():
    for k, n in ((0, 9), (3, 9), (9, 9), (40, 1000)):
        exact = stats.binomtest(k, n).proportion_ci()
        np.testing.assert_allclose(share_interval(k, n), exact, rtol=1e-9)
    low, high = count_interval(7)
    assert stats.poisson.sf(6, low) == pytest.approx(0.025)
    assert stats.poisson.cdf(7, high) == pytest.approx(0.025)
    x = [0.1, 0.4, 0.35, 0.8]
    expected = stats.ttest_1samp(x, 0).confidence_interval()
    np.testing.assert_allclose(over_seeds([*x, np.nan])[1:], expected)


def test_intervals_over_seeds_say_when_there_is_nothing_to_say():
    assert over_seeds([0.3])[1:] == (-np.inf, np.inf)
    with pytest.raises(UserError, match="no seed"):
        over_seeds([np.nan])


def test_a_unit_at_the_bound_of_silence_would_be_missed_one_time_in_twenty():
    r = silence_bound(40)
    assert (1 - r) ** 40 == pytest.approx(0.05)
    missed = np.random.default_rng(0).binomial(40, r, 20_000) == 0
    assert 0.045 < missed.mean() < 0.055
