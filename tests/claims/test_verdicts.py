"""The rule: where an interval lies against thresholds."""

from __future__ import annotations

import math

import pytest

from minirelu.claims.claims import CLAIMS
from minirelu.claims.verdicts import (
    NOT_SEEN,
    OPPOSITE,
    SEEN,
    UNKNOWN,
    Thresholds,
    beyond_null,
    verdict,
)
from minirelu.intervals import Estimate, over_seeds

ABOVE, BELOW = Thresholds(0.5, 0.1), Thresholds(0.5, 0.9, above=False)


@pytest.mark.parametrize(
    "low, high, expected",
    [
        (0.51, 0.70, SEEN),
        (0.49, 0.70, UNKNOWN),
        (0.05, 0.70, UNKNOWN),
        (0.20, 0.49, NOT_SEEN),
        (0.05, 0.49, NOT_SEEN),  # the opposite is not certain, but the claim is excluded
        (0.02, 0.09, OPPOSITE),
        (0.50, 0.50, UNKNOWN),
        (0.10, 0.10, NOT_SEEN),
    ],
)
def test_the_whole_interval_must_lie_beyond_a_threshold(low, high, expected):
    assert verdict(Estimate((low + high) / 2, low, high), ABOVE) == expected
    mirrored = Estimate(1 - (low + high) / 2, 1 - high, 1 - low)
    assert verdict(mirrored, BELOW) == expected


def test_a_single_seed_gives_no_verdict():
    assert verdict(over_seeds([0.99]), ABOVE) == verdict(over_seeds([0.0]), ABOVE) == UNKNOWN
    assert verdict(Estimate(math.nan, math.nan, math.nan), ABOVE) == UNKNOWN


def test_rounding_is_no_effect():
    at_0 = Thresholds(0.0, 0.0)
    assert verdict(Estimate(0, -1e-17, 1e-17), at_0) == UNKNOWN
    assert verdict(Estimate(1e-17, 1e-17, 1e-17), at_0) == UNKNOWN


def test_a_hit_that_is_not_beyond_its_null_is_none():
    above, around, below = Estimate(2, 1, 3), Estimate(0, -1, 1), Estimate(-2, -3, -1)
    assert [beyond_null(SEEN, e) for e in (above, around, below)] == [SEEN, UNKNOWN, NOT_SEEN]
    assert [beyond_null(SEEN, e, above=False) for e in (above, below)] == [NOT_SEEN, SEEN]
    for said in (NOT_SEEN, OPPOSITE, UNKNOWN):
        assert beyond_null(said, above) == beyond_null(said, below) == said


def test_thresholds_cannot_overlap():
    for seen, opposite, above in ((0.1, 0.5, True), (0.9, 0.5, False)):
        with pytest.raises(ValueError, match="both the claim and its opposite"):
            Thresholds(seen, opposite, above)


def test_claims_are_named_and_sourced():
    assert list(CLAIMS) == [claim.name for claim in CLAIMS.values()]
    for claim in CLAIMS.values():
        assert claim.source == "text" or claim.source.startswith("Fig ")
        assert claim.says.endswith(".") and "\n" not in claim.says and claim.number and claim.null
