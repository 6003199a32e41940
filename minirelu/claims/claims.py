"""The claims of Wild & Anderson 2024 (arXiv 2407.07848), in our words, with our definitions.

Thresholds stand here, before any run that is asked: they are not options.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minirelu.claims import across, deaths, probes, units
from minirelu.claims.verdicts import Thresholds
from minirelu.errors import UserError, nearest, one_line

# What a claim is asked of: runs that differ in their seeds; also in one setting; a study of deaths.
RUNS, WIDTHS, DEPTHS, STUDY = "runs", "d_mlp", "n_layers", "study"
# How numbers are shown: shares of units, differences of shares, and ratios.
SHARE, POINTS, FACTOR = "share", "points", "factor"


@dataclass(frozen=True)
class Claim:
    """One claim, and how it is put to the test.

    Attributes
    ----------
    name : str
    says : str
        the claim, in one line.
    source : str
        where it is from: a figure, or "text", which is what a summary says.
    number : str
        our definition, and what its null is.
    null : str
    unit : str
    thresholds : Thresholds
        when it is seen, and when its opposite.
    shown_by : str
        the command that shows it; its first words are those after ``minirelu``.
    read : callable
        to one :class:`~minirelu.claims.probes.Reading`, from what the claim is asked ``of``: a run;
        runs of one seed; or a study, which gives one for each seed.
    of : str
    beyond_null : bool
        whether the number must also go beyond its null, by the interval of the difference.
    reach : int
        steps that a training must have made.
    """

    name: str
    says: str
    source: str
    number: str
    null: str
    unit: str
    thresholds: Thresholds
    shown_by: str
    read: Callable[[Any], Any]
    of: str = RUNS
    beyond_null: bool = False
    reach: int = 0

    def text(self, value: float) -> str:
        """Write a number of this claim.

        >>> CLAIMS["first-layer-collapses"].text(0.133), CLAIMS["inverted-per-batch"].text(0.5)
        ('13.3 %', '+50.0')
        """
        if self.unit == FACTOR:
            return f"{value:.2f}"
        if self.unit == SHARE:
            return f"{100 * value:.1f} %"
        return f"{100 * value:+.1f}" if value else "0"


AT_START = "the same at step 0"
_ABOVE_0, _BELOW_0 = Thresholds(0.0, 0.0), Thresholds(0.0, 0.0, above=False)

CLAIMS: dict[str, Claim] = {
    claim.name: claim
    for claim in (
        Claim(
            "layers-diverge",
            "Layers come to use very different shares of their units in a batch.",
            "Fig 1",
            "use per batch at the end, largest layer less smallest, in points",
            AT_START, POINTS, Thresholds(0.10, 0.02), "figure fig1 RUN...",
            probes.range_of_layers, beyond_null=True,
        ),
        Claim(
            "first-layer-collapses",
            "The first layer ends up using a small share of its units in a batch (13.3 %).",
            "Fig 1, text",
            "use per batch of layer 0 at the end",
            AT_START, SHARE, Thresholds(0.50, 0.90, above=False), "figure fig1 RUN...",
            probes.first_layer,
        ),
        Claim(
            "last-layer-stays",
            "The last layer uses nearly all of its units in a batch (95.6 %).",
            "Fig 1, text",
            "use per batch of the last layer at the end",
            "the mean of the other layers", SHARE, Thresholds(0.90, 0.50), "figure fig1 RUN...",
            probes.last_layer, beyond_null=True,
        ),
        Claim(
            "inverted-per-batch",
            "First and last layer are inverted: in a batch the last uses the larger share.",
            "Fig 1, text",
            "use per batch at the end, last layer less first, in points",
            AT_START, POINTS, _ABOVE_0, "figure fig1 RUN...",
            probes.last_minus_first("per_batch"),
        ),
        Claim(
            "inverted-per-token",
            "The same at a token.",
            "text",
            "use per token at the end, last layer less first, in points",
            AT_START, POINTS, _ABOVE_0, "figure fig5 RUN...",
            probes.last_minus_first("per_token"),
        ),
        Claim(
            "last-above-middle",
            "The last layer uses more of its units in a batch than those in the middle.",
            "Fig 1",
            "use per batch at the end, last layer less the mean of all between first and last, in "
            "points",
            AT_START, POINTS, _ABOVE_0, "figure fig1 RUN...",
            probes.last_minus_middle,
        ),
        Claim(
            "use-falls",
            "Units on at a token become far fewer over training.",
            "Fig 5",
            "use per token at the end over that at step 0, mean of the layers",
            "no change", FACTOR, Thresholds(0.5, 1.0, above=False), "figure fig5 RUN...",
            probes.what_is_left,
        ),
        Claim(
            "falls-gradually",
            "They do so gradually.",
            "Fig 5, text",
            "largest fall of use per token between two probes in a row, as a share of all of it",
            "were all falls alike", SHARE, Thresholds(0.5, 0.9, above=False), "figure fig5 RUN...",
            probes.largest_fall,
        ),
        Claim(
            "early-dip",
            "In the first steps fewer and fewer units are used, and then more again.",
            "Fig 2a",
            "use per sequence, mean of the layers: how far it dips within 64 steps and is back by "
            "256, the lesser of the two, in points",
            "no dip", POINTS, Thresholds(0.05, 0.0), "figure early RUN...",
            probes.dip_per_sequence, reach=probes.BACK_BY,
        ),
        Claim(
            "early-steadiness",
            "Meanwhile those that are used fire at nearly every position, and then no longer.",
            "Fig 2b",
            "positions at which the median used unit is on, mean of the layers: how far it rises "
            "within 64 steps and is back by 256, the lesser of the two, in points",
            "no peak", POINTS, Thresholds(0.10, 0.0), "figure fig2b RUN...",
            probes.peak_of_median, reach=probes.BACK_BY,
        ),
        Claim(
            "first-layer-shifts",
            "Late in training the first layer comes to use fewer units in a sequence.",
            "text",
            "change of layer 0's use per sequence over the second half of the training, in points",
            "the mean of the other layers", POINTS, Thresholds(-0.05, 0.05, above=False),
            "figure heatmap RUN", probes.late_shift_of_first,
        ),
        Claim(
            "prunable",
            "Many hidden units can be removed with little effect.",
            "text",
            "share of all units that can go, by first-order rank, before the loss on "
            f"{units.TOKENS} held-out tokens rises by 1 %",
            "removed in random order", SHARE, Thresholds(0.25, 0.05), "prune RUN...",
            units.removable_units, beyond_null=True,
        ),
        Claim(
            "ends-differ-in-specificity",
            "Units of the first and of the last layer differ in how specific they are.",
            "text",
            "effective number of tokens that the median unit responds to: first and last layer, "
            "the larger over the smaller",
            "alike", FACTOR, Thresholds(2.0, 1.1), "figure specificity RUN...",
            units.specificity_of_ends,
        ),
        Claim(
            "width-per-batch",
            "The wider the layers, the smaller the share of units used in a batch.",
            "Fig 3",
            "change of use per batch (mean of the layers, at the end) for each doubling of d_mlp, "
            "in points",
            "no trend", POINTS, _BELOW_0, "figure fig3 RUN...",
            across.slope_with_width("per_batch"), of=WIDTHS,
        ),
        Claim(
            "width-per-token",
            "The wider the layers, the smaller the share of units on at a token.",
            "Fig 3",
            "change of use per token (mean of the layers, at the end) for each doubling of d_mlp, "
            "in points",
            "no trend", POINTS, _BELOW_0, "figure fig3 RUN...",
            across.slope_with_width("per_token"), of=WIDTHS,
        ),
        Claim(
            "depth",
            "At every depth the last layer uses a larger share in a batch than the first.",
            "Fig 4",
            "use per batch at the end, last layer less first, at the depth where the difference is "
            "smallest (0 if its sign changes), in points",
            "alike", POINTS, Thresholds(0.05, -0.05), "figure fig4 RUN...",
            across.weakest_with_depth, of=DEPTHS,
        ),
        Claim(
            "not-random",
            "Which units turn off is not chance.",
            "text",
            "units silent in both of two trainings that share initial weights but no batch, over "
            "what chance gives, at equal margins at step 0",
            "two trainings that share the batches only", FACTOR, Thresholds(1.2, 1 / 1.2),
            "death twins --out STUDY",
            deaths.statistic(
                "twins", "the same, at equal margin at step 0",
                "control: other weights, same batches",
            ),
            of=STUDY, beyond_null=True,
        ),
        Claim(
            "not-one-batch",
            "Units do not turn off because of single outlying batches.",
            "text",
            "deaths avoided where the most suspect batch is swapped for another, less those where "
            "an innocent one is, in points",
            "no matter which", POINTS, Thresholds(0.1, 0.5, above=False),
            "death replay --out STUDY",
            deaths.statistic("replay", "suspect - innocent", 0.0), of=STUDY,
        ),
        Claim(
            "not-large-updates",
            "Nor because of single outlying updates.",
            "text",
            "silent units spared where a unit's largest updates are clipped, in points",
            "as many others clipped", POINTS, Thresholds(0.1, 0.5, above=False),
            "death intervene --out STUDY",
            deaths.statistic(
                "intervene", "unit_clip: deaths avoided", "clip_others: deaths avoided"
            ),
            of=STUDY,
        ),
    )
}  # fmt: skip

# What is said too vaguely, as far as it is known to us, for a number and a threshold.
UNTESTED = (
    "limits of small ReLU models",
    "conclusions for capacity planning",
)


def chosen(names: tuple[str, ...] | list[str]) -> list[Claim]:
    """Claims by their names; the first words of a name stand for all that begin with them.

    Raises
    ------
    UserError
        no such claim; the nearest one is named.

    Examples
    --------
    >>> [claim.name for claim in chosen(["width", "prunable"])]
    ['width-per-batch', 'width-per-token', 'prunable']
    """
    found: dict[str, Claim] = {}
    for name in names:
        of_name = [c for c in CLAIMS.values() if f"{c.name}-".startswith(f"{name}-")]
        if not of_name or not name:
            raise UserError(
                f"there is no claim {one_line(repr(name))}{nearest(name, CLAIMS)}; there are "
                f"{', '.join(CLAIMS)}"
            )
        found |= {claim.name: claim for claim in of_name}
    return list(found.values()) if names else list(CLAIMS.values())
