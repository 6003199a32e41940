"""Numbers that take more than probes: what pruning costs, and what units respond to."""

from __future__ import annotations

import math

from minirelu.claims.probes import Missing, Reading
from minirelu.errors import command, shown
from minirelu.pruning.curves import LIMITS
from minirelu.pruning.survey import removable_over_seeds, survey
from minirelu.pruning.texts import trained_on
from minirelu.runs.run import Run, probes_of
from minirelu.specificity.measure import FILE, read_results

TOKENS = 4096  # of the text that units are ranked on, and of the one that models are measured on


def removable_units(run: Run) -> Reading:
    """Share of all units that can go at less than 1 % of the loss; null: in random order."""
    if not run.steps:
        raise Missing(f"it needs weights, and {shown(run.folder)} has none: train it anew")
    train = run.settings.train
    found = survey(
        run.params(), trained_on(run, TOKENS), run.held_out(TOKENS),
        criteria=("first_order", "random"), scopes=("global",), compute=train.compute,
        seed=train.seed,
    )  # fmt: skip
    ranked, random = (
        removable_over_seeds([found], by, "global", LIMITS[-1]).value
        for by in ("first_order", "random")
    )
    return Reading(ranked, random)


def specificity_of_ends(run: Run) -> Reading:
    """Tokens that the median unit responds to: first and last layer, larger over smaller.

    NaN where one of them is wholly silent.
    """
    again = command("specificity", run.folder)
    if not (run.folder / FILE).is_file():
        raise Missing(f"it needs what the units of {shown(run.folder)} respond to: {again}")
    last, step = read_results(run)[-1], probes_of(run)[-1]["step"]
    if last["step"] != step:
        raise Missing(
            f"it needs what units respond to at step {step}, and in {shown(run.folder)} that was "
            f"measured at step {last['step']}: {again}"
        )
    if len(last["layers"]) < 2:
        raise Missing(f"it needs 2 layers or more, and {shown(run.folder)} has 1")
    ends = [last["layers"][l]["effective_tokens"] for l in (0, -1)]
    return Reading(math.nan if None in ends else max(ends) / min(ends), 1.0)
