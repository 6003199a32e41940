"""Verdicts: where an interval over seeds lies against thresholds that were fixed beforehand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from minirelu.intervals import Estimate

SEEN, NOT_SEEN, OPPOSITE, UNKNOWN = VERDICTS = (
    "seen",
    "not seen",
    "the opposite",
    "cannot be said at this size",
)
ROUNDING = 1e-9  # a difference that is 0 may come out as this; it lies beyond no threshold


@dataclass(frozen=True)
class Thresholds:
    """A claim is seen beyond ``seen``, and its opposite beyond ``opposite``, on the other side.

    ``above``: whether beyond ``seen`` is above it.

    >>> Thresholds(seen=0.5, opposite=0.9, above=False).text(lambda x: f"{x:g}")
    '< 0.5'
    """

    seen: float
    opposite: float
    above: bool = True

    def __post_init__(self) -> None:
        if (self.opposite > self.seen) if self.above else (self.opposite < self.seen):
            raise ValueError(f"{self}: a number could be both the claim and its opposite")

    def text(self, write: Callable[[float], str]) -> str:
        """Say when the claim is seen; ``write`` writes the number."""
        return f"{'>' if self.above else '<'} {write(self.seen)}"


def verdict(estimate: Estimate, thresholds: Thresholds) -> str:
    """Say what an interval allows to say.

    Seen, or the opposite: the whole interval lies beyond that threshold. Not seen: all of it falls
    short of the claim's. Else, and so for a single seed, whose interval has no end, nothing.

    Parameters
    ----------
    estimate : Estimate
        over seeds.
    thresholds : Thresholds

    Returns
    -------
    str
        one of :data:`VERDICTS`.

    Examples
    --------
    >>> many = Thresholds(seen=0.5, opposite=0.1)
    >>> [verdict(Estimate(x, x - 0.05, x + 0.05), many) for x in (0.6, 0.3, 0.02)]
    ['seen', 'not seen', 'the opposite']
    >>> verdict(Estimate(0.52, 0.47, 0.57), many)
    'cannot be said at this size'
    """
    _, low, high = estimate
    seen, opposite = thresholds.seen, thresholds.opposite
    if not thresholds.above:  # the same on the mirrored axis
        low, high, seen, opposite = -high, -low, -seen, -opposite
    if low > seen + ROUNDING:
        return SEEN
    if high < opposite - ROUNDING:
        return OPPOSITE
    return NOT_SEEN if high < seen - ROUNDING else UNKNOWN


def beyond_null(said: str, excess: Estimate, above: bool = True) -> str:
    """Let a claim be seen only where the number is also certain to go beyond its null.

    Parameters
    ----------
    said : str
        the verdict on the number itself.
    excess : Estimate
        of the number less its null, seed by seed.
    above : bool
        whether beyond is above.

    Examples
    --------
    >>> beyond_null("seen", Estimate(0.2, 0.1, 0.3)), beyond_null("seen", Estimate(-2, -3, -1))
    ('seen', 'not seen')
    """
    if said != SEEN:
        return said
    also = verdict(excess, Thresholds(0.0, 0.0, above))
    return also if also in (SEEN, UNKNOWN) else NOT_SEEN
