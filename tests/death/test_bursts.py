"""Bursts: independent deaths sit on the null, planted bursts are found, spikes are matched."""

from __future__ import annotations

import numpy as np
import pytest

from minirelu.death.bursts import bursts, correlation_with, largest_in_intervals, spikes
from minirelu.errors import UserError

K = 120
# A hazard that rises and falls, as the learning rate may.
HAZARD = 0.004 + 0.02 * np.exp(-(((np.arange(K) - 40) / 25) ** 2))


def deaths_of(rng, units=3000, hazard=HAZARD):
    """Units that die by themselves: (deaths, at risk) in each interval."""
    deaths, at_risk, alive = [], [], units
    for h in hazard:
        at_risk.append(alive)
        deaths.append(rng.binomial(alive, h))
        alive -= deaths[-1]
    return np.array(deaths), np.array(at_risk)


def test_independent_deaths_under_a_changing_hazard_are_no_bursts():
    rng = np.random.default_rng(0)
    found = [bursts(*deaths_of(rng), simulations=100) for _ in range(100)]
    assert np.mean([b.fano / b.null.value for b in found]) == pytest.approx(1, abs=0.04)
    assert 0.01 <= np.mean([b.p < 0.05 for b in found]) < 0.1
    assert 0.88 < np.mean([b.null.low < b.fano < b.null.high for b in found])


def test_the_expected_deaths_follow_the_hazard():
    rng = np.random.default_rng(1)
    deaths, at_risk = deaths_of(rng, 10**6)
    expected = bursts(deaths, at_risk, simulations=10).expected
    np.testing.assert_allclose(expected, at_risk * HAZARD, rtol=0.06)


def test_a_burst_of_a_few_deaths_is_found_where_it_is():
    rng = np.random.default_rng(2)
    deaths, at_risk = deaths_of(rng)
    deaths[77] += 40
    b = bursts(deaths, at_risk)
    assert b.p < 0.005
    assert b.worst == 77 == b.excess.argmax()
    assert b.fano > b.null.high


def test_deaths_in_groups_of_ten_scatter_ten_times_as_much():
    rng = np.random.default_rng(3)
    deaths, at_risk = deaths_of(rng, units=3000)
    groups = rng.binomial(at_risk // 10, HAZARD) * 10
    b = bursts(groups, at_risk)
    assert 6 < b.fano / b.null.value < 15


def test_spikes_are_measured_above_what_surrounds_them():
    rng = np.random.default_rng(4)
    values = np.exp(-np.arange(1000) / 300) * (1 + 0.1 * rng.normal(size=1000))
    values[[200, 700]] *= 2
    s = spikes(values)
    assert set(np.argsort(s)[-2:]) == {200, 700}
    assert (s[[200, 700]] > 6).all()
    assert abs(np.median(s)) < 0.1
    largest = largest_in_intervals(s, np.arange(0, 1001, 10))
    assert largest[20] == s[200]
    assert largest[70] == s[700]


def test_deaths_that_follow_spikes_are_tied_to_them_and_no_others():
    rng, p_free, tied = np.random.default_rng(5), [], []
    for _ in range(100):
        deaths, at_risk = deaths_of(rng)
        signal = rng.standard_t(3, K)
        peaks = np.argsort(signal)[-3:]
        p_free.append(correlation_with(bursts(deaths, at_risk, simulations=2).excess, signal).p)
        deaths[np.minimum(peaks + 1, K - 1)] += 30
        tied.append(correlation_with(bursts(deaths, at_risk, simulations=2).excess, signal))
    assert 0.01 <= np.mean(np.array(p_free) < 0.05) < 0.12
    assert np.mean([c.p <= 4 / K for c in tied]) > 0.9
    assert np.mean([c.lag == 1 for c in tied]) > 0.9


def test_the_null_of_several_lags_takes_the_best_of_as_many():
    rng = np.random.default_rng(6)
    p = [correlation_with(*rng.normal(size=(2, 240)), lags=3).p for _ in range(400)]
    assert 0.02 < np.mean(np.array(p) <= 0.05) < 0.09


def test_what_has_no_bursts_to_look_for_is_refused_plainly():
    ones = np.ones(30, int)
    with pytest.raises(UserError, match="no unit died"):
        bursts(0 * ones, ones)
    with pytest.raises(UserError, match="20 or more"):
        bursts(ones[:19], ones[:19])
    with pytest.raises(UserError, match="bandwidth: 0"):
        bursts(ones, ones, bandwidth=0)
    with pytest.raises(UserError, match="never change"):
        correlation_with(ones, np.arange(30))
    with pytest.raises(UserError, match="20 or more"):
        correlation_with(np.arange(19), np.arange(19))
    with pytest.raises(UserError, match="end before"):
        largest_in_intervals(np.arange(5), np.array([0, 6]))
