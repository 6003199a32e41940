"""Returns from silence: rates that were put in are recovered, and flicker is told from revival."""

from __future__ import annotations

import numpy as np
import pytest

from minirelu.death.life_histories import life_histories
from minirelu.death.transitions import flicker, rates, transitions
from minirelu.errors import UserError

S, S2 = 24, 96  # sequences of the probe and of the confirming text


def seen(rng, r):
    """Sequences of two texts with units on that fire in a share r of all."""
    return rng.binomial(S, r), S, rng.binomial(S2, r), S2


def test_transitions_count_every_unit_once():
    silent = np.random.default_rng(0).random((9, 40)) < 0.4
    counts = transitions(silent)
    assert (counts.sum(axis=(1, 2)) == 40).all()
    for i in range(8):
        for a in (0, 1):
            for b in (0, 1):
                both = (silent[i] == a) & (silent[i + 1] == b)
                assert counts[i, a, b] == both.sum()


def test_rates_of_death_and_revival_are_recovered():
    rng = np.random.default_rng(3)
    P, F, every, die, revive = 150, 3000, 10, 0.02, 0.05
    dead = np.zeros((P, F), bool)
    for p in range(1, P):
        u = rng.random(F)
        dead[p] = np.where(dead[p - 1], u >= revive, u < die)
    on = np.where(dead, 0, 5)
    # A death must last a record to be one here, so none is missed.
    found = rates(life_histories(np.arange(P) * every, on, on, S2, successive=1))
    deaths, revivals = found.deaths_per_step(), found.revivals_per_step()
    assert deaths.low < die / every < deaths.high < 1.05 * die / every
    assert revivals.low < revive / every < revivals.high < 1.05 * revive / every
    np.testing.assert_array_equal(found.deaths, transitions(dead)[:, 0, 1])
    np.testing.assert_array_equal(found.revivals, transitions(dead)[:, 1, 0])
    np.testing.assert_array_equal(found.at_risk, (~dead).sum(axis=1)[:-1])


def test_units_never_on_are_not_at_risk_until_they_are():
    on = np.ones((6, 3), int)
    on[:2, 0] = on[:, 1] = 0
    assert rates(life_histories(np.arange(6), on, on, S2)).at_risk.tolist() == [1, 1, 2, 2, 2]


@pytest.mark.parametrize(("successive", "confirmed"), [(1, False), (3, False), (3, True)])
def test_flicker_of_steady_rates_is_what_is_expected(successive, confirmed):
    """The ratio's interval holds 1 about as often as it says."""
    rng, held, n = np.random.default_rng(0), 0, 100
    for _ in range(n):
        r = rng.beta(0.3, 4, 400) * np.ones((30, 1))  # from hardly ever to often
        ratio = flicker(*seen(rng, r), successive, confirmed).ratio
        held += ratio.low <= 1 <= ratio.high
    assert 0.88 * n <= held < n


def test_the_chance_of_a_return_is_estimated_without_bias():
    rng, r, m, F = np.random.default_rng(2), 0.01, 3, 200_000
    texts = seen(rng, np.full((m + 2, F), r))
    before, again = 1 - (1 - r) ** S, 1 - (1 - r) ** S
    for confirmed, M in ((False, m * S), (True, m * S + S2)):
        f = flicker(*texts, m, confirmed)
        exact = F * before * (1 - r) ** M * again
        assert f.expected[-1] == pytest.approx(exact, rel=0.02)
        assert f.observed[-1] == pytest.approx(exact, rel=0.05)


def test_true_revivals_stand_out_from_flicker():
    rng = np.random.default_rng(1)
    r = rng.beta(0.3, 4, 500) * np.ones((40, 1))
    steady = flicker(*seen(rng, r)).ratio
    r[10:25, :50] = 0  # ten percent stop for a while, then fire again
    r[25:, :50] = r[:10, :50] = 0.4
    f = flicker(*seen(rng, r))
    assert steady.low < 1 < steady.high
    assert f.ratio.low > 1
    assert f.observed[25] - f.expected[25] > 45


def test_the_same_sequences_at_every_record_flicker_less_than_chance():
    rng = np.random.default_rng(4)
    r = np.full(5000, 0.01)
    probe, other = rng.binomial(S, r), rng.binomial(S2, r)
    f = flicker(np.tile(probe, (20, 1)), S, np.tile(other, (20, 1)), S2)
    assert f.ratio.value == 0
    assert f.ratio.high < 1


def test_flicker_needs_records_and_a_large_confirming_text():
    on = np.ones((4, 2), int)
    with pytest.raises(UserError, match="5 or more"):
        flicker(on, S, on, S2)
    with pytest.raises(UserError, match="too small"):
        flicker(np.ones((9, 2), int), S, np.ones((9, 2), int), 2 * S - 1)


def test_where_nothing_can_flicker_the_ratio_is_unknown():
    on = np.ones((9, 2), int)
    assert np.isnan(flicker(on * S, S, on * S2, S2).ratio.value)
