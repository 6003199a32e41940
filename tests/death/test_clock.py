"""Clocks: curves driven by drift, diffusion or steps collapse on their own clock alone."""

from __future__ import annotations

import numpy as np
import pytest

from minirelu.death.clock import best_clock, clock, collapse
from minirelu.errors import UserError

STEPS = np.arange(0, 1001, 20)


def schedules() -> list[np.ndarray]:
    """Four rates, with warm-up and decay of their own."""
    t = np.arange(1000)
    warm = np.minimum(1, (t + 1) / 100)
    return [lr * warm * (1 - decay * t / 1000) for lr, decay in
            ((1e-3, 0), (2e-3, 0.8), (4e-3, 0), (6e-3, 0.5))]  # fmt: skip


def curves_on(power: float, rng: np.random.Generator, units: int = 4000) -> list[np.ndarray]:
    """Shares of dead units, whose hazard follows a clock."""
    lrs = schedules()
    scale = np.mean([clock(lr, STEPS, power)[-1] for lr in lrs])
    shares = []
    for lr in lrs:
        dies = rng.exponential(scale, units)
        shares.append((dies[:, None] <= clock(lr, STEPS, power)).mean(axis=0))
    return shares


@pytest.mark.parametrize("power", [0, 1, 2])
def test_curves_collapse_on_the_clock_that_drives_them_and_no_other(power):
    curves = curves_on(power, np.random.default_rng(power))
    spread = {
        p: collapse([clock(lr, STEPS, p) for lr in schedules()], curves).spread for p in (0, 1, 2)
    }
    assert spread[power] < 0.03
    assert all(spread[p] > 10 * spread[power] for p in spread if p != power)
    assert best_clock(schedules(), [STEPS] * 4, curves).power == pytest.approx(power, abs=0.15)


def test_curves_that_have_nothing_in_common_do_not_collapse():
    clocks = [STEPS.astype(float)] * 2
    assert collapse(clocks, [np.zeros(len(STEPS)), np.ones(len(STEPS))]).spread == 1


def test_only_the_range_in_common_is_compared():
    a, b = np.linspace(0, 1, 30), np.linspace(0, 3, 40)
    later = np.where(b > 1.2, 0.9, b * b)
    found = collapse([a, b], [a * a, later])
    assert found.end == 1
    assert found.spread < 1e-3


def test_clocks_sum_the_rates_of_the_updates_made():
    lr = np.random.default_rng(0).random(1000)
    for p in (1, 2):
        np.testing.assert_allclose(clock(lr, STEPS, p), [(lr[:s] ** p).sum() for s in STEPS])
    np.testing.assert_array_equal(clock(0 * lr, STEPS, 0), STEPS)


def test_what_cannot_collapse_is_refused_plainly():
    t = np.arange(5.0)
    with pytest.raises(UserError, match="1 curves"):
        collapse([t], [t])
    with pytest.raises(UserError, match="no unit died before 4"):
        collapse([t, t], [0 * t, 0 * t])
    with pytest.raises(UserError, match="share no range"):
        collapse([t, t + 9], [t, t])
    with pytest.raises(UserError, match="end before step 1000"):
        clock(np.ones(999), STEPS)
