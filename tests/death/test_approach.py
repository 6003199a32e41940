"""The approach to death: walks, drifts and jumps that were put in are told apart."""

from __future__ import annotations

import numpy as np
import pytest

from minirelu.death.approach import aligned, approach, walk_null
from minirelu.death.life_histories import life_histories
from minirelu.errors import UserError

P, F, BEFORE = 120, 400, 20


def margins(rng, drift: float, noise: float, start: float = 10.0) -> np.ndarray:
    """Margins of units that begin around ``start`` and take independent steps."""
    steps = rng.normal(drift, noise, (P, F))
    steps[0] = rng.uniform(0.8, 1.2, F) * start
    return steps.cumsum(axis=0)


def with_jumps(rng) -> np.ndarray:
    """Margins that hover around 10, until one step takes them below 0."""
    margin = 10 + rng.normal(0, 0.3, (P, F))
    margin[np.arange(P)[:, None] >= rng.integers(25, P - 5, F)] -= 12
    return margin


def dying(margin: np.ndarray) -> np.ndarray:
    lives = life_histories(np.arange(P), margin > 0, margin > 0, 1)
    return aligned(margin, lives.first.high, BEFORE)


def test_paths_end_at_the_first_silent_record():
    rng = np.random.default_rng(0)
    margin = margins(rng, -0.1, 1.0)
    lives = life_histories(np.arange(P), margin > 0, margin > 0, 1)
    paths = aligned(margin, lives.first.high, BEFORE)
    late = np.flatnonzero(lives.first.high >= BEFORE)
    assert len(paths) == len(late) > 50
    for path, unit in zip(paths, late, strict=True):
        high = lives.first.high[unit]
        np.testing.assert_array_equal(path, margin[high - BEFORE : high + 1, unit])
        assert path[-1] <= 0 < path[-2]


def test_a_random_walk_has_exponent_1_and_drift_2():
    rng = np.random.default_rng(1)
    walk = approach(dying(margins(rng, 0.0, 1.0, start=6.0)))
    drift = approach(dying(margins(rng, -0.2, 0.02)))
    assert walk.exponent.low < 1 < walk.exponent.high
    assert walk.exponent.high < 1.2
    assert drift.exponent.low > 1.95
    assert drift.exponent.value == pytest.approx(2, abs=0.04)


def test_a_jump_makes_most_of_the_descent_and_drift_very_little():
    rng = np.random.default_rng(2)
    jump = approach(dying(with_jumps(rng)))
    drift = approach(dying(margins(rng, -0.2, 0.02)))
    assert jump.jump.low > 0.5
    assert jump.jumped.value == 1
    assert drift.jump.high < 1.5 / BEFORE
    assert drift.jumped.value == 0
    assert jump.exponent.high < 0.2  # where it is does not matter before


def test_mean_and_spread_are_aligned_at_death():
    a = approach(dying(margins(np.random.default_rng(3), -0.2, 0.02)))
    np.testing.assert_allclose(np.diff(a.mean), -0.2, atol=0.01)
    assert -0.2 < a.mean[-1] < 0
    assert a.spread[-1] < 0.1


def test_walks_lie_within_their_null():
    """Walks chosen for dying: the null of walks aligned at first passage holds their numbers."""
    rng, inside, n = np.random.default_rng(4), np.zeros(4), 20
    for seed in range(n):
        margin = margins(rng, 0.0, 1.0, start=5.0) * rng.uniform(0.5, 2, F)  # each its own scale
        paths, a = dying(margin), approach(dying(margin), resamples=2)
        null = walk_null(margin, BEFORE, repeats=40, seed=seed)
        died = life_histories(np.arange(P), margin > 0, margin > 0, 1).died.sum()
        values = died, a.exponent.value, a.jump.value, a.jumped.value
        inside += [e.low <= v <= e.high for v, e in zip(values, null, strict=True)]
        assert len(paths) > 50
    assert (inside >= 0.8 * n).all()


def test_drift_and_jumps_lie_outside_the_null_of_walks():
    rng = np.random.default_rng(5)
    margin = margins(rng, -0.15, 0.25, start=5.0)
    null = walk_null(margin, BEFORE, repeats=40)
    assert approach(dying(margin)).exponent.low > null.exponent.high
    assert F * 0.9 > null.deaths.high
    jumps = with_jumps(rng)
    assert approach(dying(jumps)).jump.low > walk_null(jumps, BEFORE, repeats=40).jump.high


def test_where_no_walk_could_die_the_null_says_so():
    margin = margins(np.random.default_rng(6), -0.12, 0.001)
    null = walk_null(margin, BEFORE, repeats=5)
    assert len(dying(margin)) > F / 2
    assert null.deaths.high < 10
    assert np.isnan(null.exponent.value)


def test_limits_are_as_wide_as_new_units_make_them():
    rng = np.random.default_rng(9)
    found = [approach(dying(margins(rng, -0.3, 1.0)), resamples=100) for _ in range(40)]
    for name in ("exponent", "jump"):
        estimates = np.array([getattr(a, name) for a in found])
        spread = 2 * 1.96 * estimates[:, 0].std()
        assert 0.7 < (estimates[:, 2] - estimates[:, 1]).mean() / spread < 1.4


def test_the_exponent_is_a_slope_in_which_each_octave_counts_the_same():
    paths = dying(margins(np.random.default_rng(10), -0.2, 0.3))
    tau = np.arange(1, BEFORE + 1)
    msd = [((paths[:, -1] - paths[:, -1 - t]) ** 2).mean() for t in tau]
    slope, _ = np.polyfit(np.log(tau), np.log(msd), 1, w=tau**-0.5)  # w multiplies residuals
    assert approach(paths, resamples=2).exponent.value == pytest.approx(slope)


def test_limits_over_seeds_are_wider_than_over_units_when_seeds_differ():
    rng = np.random.default_rng(7)
    paths = [dying(margins(rng, drift, 0.3)) for drift in (-0.1, -0.15, -0.3, -0.5)]
    seeds = np.repeat(np.arange(4), [len(p) for p in paths])
    by_unit, by_seed = (approach(np.concatenate(paths), g).exponent for g in (None, seeds))
    assert by_seed.value == pytest.approx(by_unit.value)
    assert by_seed.high - by_seed.low > 2 * (by_unit.high - by_unit.low)
    one = approach(paths[0], np.zeros(len(paths[0]))).exponent
    assert (one.low, one.high) == (-np.inf, np.inf)


def test_too_few_deaths_are_refused_plainly():
    paths = dying(margins(np.random.default_rng(8), -0.2, 0.02))
    with pytest.raises(UserError, match="9 deaths with 20 records"):
        approach(paths[:9])
    with pytest.raises(UserError, match="with 3 records"):
        approach(paths[:, -4:])
    with pytest.raises(UserError, match="0 deaths"):
        approach(aligned(np.ones((P, F)), np.full(F, -1), BEFORE))
