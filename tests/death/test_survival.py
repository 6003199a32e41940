"""Life tables, log-rank and fits: known hazards are recovered, and scipy and a textbook agree."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from minirelu.death.life_histories import life_histories
from minirelu.death.survival import (
    Times,
    exponential_or_weibull,
    first_deaths,
    life_table,
    logrank,
)
from minirelu.errors import UserError

# Weeks in remission of 21 + 21 children with leukaemia (Freireich et al. 1963), as in Cox 1972.
TREATED = [6, 6, 6, 7, 10, 13, 16, 22, 23]
TREATED_CENSORED = [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
PLACEBO = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]
WEEKS = np.arange(36)


def times(died: list[int], censored: list[int] = (), steps: np.ndarray = WEEKS) -> Times:
    alive = np.repeat([True, False], [len(died), len(censored)])
    return Times(steps, np.array([*died, *censored]), alive)


def simulate(rng, n, shape, scale, steps, stop=None) -> Times:
    """Units with a Weibull time of death, seen at records; some are lost from sight before."""
    t = scale * rng.weibull(shape, n)
    record = np.searchsorted(steps, t)  # the first record at or after death
    last = np.minimum(len(steps) - 1, rng.integers(0, stop, n) if stop else n)
    died = record <= last
    return Times(steps, np.where(died, record, last), died)


def test_survival_equals_the_textbook():
    """Kaplan-Meier of the treated: as printed in Kalbfleisch & Prentice 1980, p. 14."""
    table = life_table(times(TREATED, TREATED_CENSORED))
    at = np.array([6, 7, 10, 13, 16, 22, 23])
    expected = [0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448]
    np.testing.assert_allclose(table.survival[at - 1], expected, atol=6e-4)
    assert table.at_risk[at - 1].tolist() == [21, 17, 15, 12, 11, 7, 6]
    assert table.deaths[at - 1].tolist() == [3, 1, 1, 1, 1, 1, 1]
    # log(-log) limits at 10 and 23 weeks, as R's survival package gives them
    np.testing.assert_allclose(table.survival_low[[9, 22]], [0.503, 0.188], atol=6e-4)
    np.testing.assert_allclose(table.survival_high[[9, 22]], [0.889, 0.680], atol=6e-4)


def test_logrank_equals_the_textbook():
    """Chi-squared 16.79; 21 deaths under placebo where 10.75 were expected."""
    test = logrank(times(PLACEBO), times(TREATED, TREATED_CENSORED))
    assert test.z**2 == pytest.approx(16.79, abs=0.01)
    assert test.z > 0
    assert (test.observed, round(test.expected, 2)) == (21, 10.75)
    assert test.p == pytest.approx(stats.chi2.sf(test.z**2, 1))
    assert logrank(times(TREATED, TREATED_CENSORED), times(PLACEBO)).z == pytest.approx(-test.z)


def test_hazards_and_survival_are_the_ones_put_in():
    rng, steps, held = np.random.default_rng(0), np.arange(0, 201, 10), []
    for _ in range(40):
        table = life_table(simulate(rng, 800, 1.0, 120.0, steps, stop=25))
        hazard, survival = 1 - np.exp(-10 / 120), np.exp(-steps[1:] / 120)
        held.append(
            [
                (table.hazard_low <= hazard) & (hazard <= table.hazard_high),
                (table.survival_low <= survival) & (survival <= table.survival_high),
            ]
        )
    cover = np.mean(held, axis=(0, 2))
    assert (cover > 0.92).all()
    assert cover[1] < 0.98


def test_survival_says_as_much_where_nobody_or_everybody_died():
    nobody = life_table(times([], [3, 3, 3], np.arange(4)))
    assert (nobody.survival == 1).all()
    assert (nobody.survival_low == 1).all()
    assert nobody.hazard_high[0] > 0.6  # three units promise little
    everybody = life_table(times([1, 1, 2], [], np.arange(4)))
    assert everybody.survival.tolist() == [pytest.approx(1 / 3), 0, 0]
    assert (everybody.survival_low[1:] == 0).all()
    assert (everybody.survival_high[1:] > 0.5).all()
    assert np.isnan(everybody.hazard[2])


def test_logrank_sees_another_hazard_and_no_other_where_there_is_none():
    rng, steps = np.random.default_rng(1), np.arange(0, 201, 10)
    same, other = [], []
    for _ in range(200):
        a = simulate(rng, 150, 1.0, 120.0, steps, stop=25)
        same.append(logrank(a, simulate(rng, 200, 1.0, 120.0, steps)).z)
        other.append(logrank(a, simulate(rng, 200, 1.0, 240.0, steps)).z)
    assert abs(np.mean(same)) < 0.25
    assert 0.85 < np.std(same) < 1.15
    assert np.mean(other) > 3


@pytest.mark.parametrize("shape", [0.5, 1.0, 2.0])
def test_the_shape_of_a_hazard_is_recovered(shape):
    rng, steps, held = np.random.default_rng(2), np.arange(0, 401, 20), 0
    for _ in range(40):
        fit = exponential_or_weibull(simulate(rng, 400, shape, 200.0, steps, stop=25))
        held += fit.shape.low < shape < fit.shape.high
    assert held >= 34
    large = exponential_or_weibull(simulate(rng, 20_000, shape, 200.0, steps))
    assert large.scale == pytest.approx(200, rel=0.05)
    assert (large.aic_difference > 10) == (shape != 1)


def test_fits_equal_those_of_scipy():
    rng, steps = np.random.default_rng(3), np.arange(0, 401, 20)
    t = simulate(rng, 300, 1.4, 200.0, steps, stop=25)
    fit = exponential_or_weibull(t)
    low = steps[np.where(t.died, t.record - 1, t.record)].astype(float)
    high = np.where(t.died, steps[t.record], np.inf)
    data = stats.CensoredData(interval=np.stack([low, high], axis=1)[t.died], right=low[~t.died])
    shape, _, scale = stats.weibull_min.fit(data, floc=0)
    assert fit.shape.value == pytest.approx(shape, rel=1e-3)
    assert fit.scale == pytest.approx(scale, rel=1e-3)
    assert 1 / fit.rate == pytest.approx(stats.expon.fit(data, floc=0)[1], rel=1e-3)

    def loss(law):
        within = law.cdf(high[t.died]) - law.cdf(low[t.died])
        return -np.log(within).sum() - law.logsf(low[~t.died]).sum()

    constant = loss(stats.expon(scale=1 / fit.rate))
    weibull = loss(stats.weibull_min(fit.shape.value, scale=fit.scale))
    assert fit.aic_difference == pytest.approx(2 * (constant - weibull) - 2, abs=1e-6)


def test_units_silent_from_the_start_are_not_followed():
    on = np.ones((8, 3), int)
    on[:, 0] = 0  # never on
    on[4:, 1] = 0  # dies
    on[7, 2] = 0  # too late to tell
    t = first_deaths(life_histories(np.arange(8), on, on, 64))
    assert t.record.tolist() == [4, 6]
    assert t.died.tolist() == [True, False]


def test_what_cannot_be_compared_is_refused_plainly():
    with pytest.raises(UserError, match="no unit died"):
        logrank(times([], [3, 3]), times([], [4]))
    with pytest.raises(UserError, match="different steps"):
        logrank(times([1]), times([1], steps=np.arange(4)))
    with pytest.raises(UserError, match="no units"):
        logrank(times([1]), times([]))
    with pytest.raises(UserError, match="units of both groups"):
        logrank(times([4, 5]), times([], [2, 3]))
    with pytest.raises(UserError, match="no lives to follow"):
        life_table(times([]))
    with pytest.raises(UserError, match="fall into 2 intervals"):
        exponential_or_weibull(times([4, 4, 7], [9]))
