"""Putting a claim to runs: seed by seed, then over the seeds, then a verdict."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from minirelu.claims.claims import Claim
from minirelu.claims.probes import Missing, Reading, too_short
from minirelu.claims.verdicts import UNKNOWN, beyond_null, verdict
from minirelu.death.study import Study
from minirelu.errors import UserError, shown
from minirelu.intervals import Estimate, over_seeds
from minirelu.runs.run import Run

NOTHING = Estimate(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Answer:
    """What runs say to a claim.

    ``readings`` : by seed. ``why`` : what runs lack, or that they are too short; else empty.
    """

    claim: Claim
    readings: Mapping[int, Reading] = field(default_factory=dict)
    why: str = ""

    @property
    def estimate(self) -> Estimate:
        """Of the number, over seeds; NaN without any."""
        return _estimate([r.value for r in self.readings.values()])

    @property
    def null(self) -> Estimate:
        """Of what the number would be by its null."""
        return _estimate([r.null for r in self.readings.values()])

    @property
    def seeds(self) -> int:
        """Seeds that gave a number."""
        return sum(not math.isnan(r.value) for r in self.readings.values())

    @property
    def reason(self) -> str:
        """Why there can be no verdict, whatever the number is; empty where there can be."""
        if self.why or self.seeds > 1:
            return self.why
        if self.seeds:
            return "a verdict takes two seeds or more; train others with --seed"
        return "no seed gave a number: too few units were on, or died, to tell"

    @property
    def verdict(self) -> str:
        """One of :data:`minirelu.claims.verdicts.VERDICTS`."""
        claim = self.claim
        if self.reason:
            return UNKNOWN
        said = verdict(self.estimate, claim.thresholds)
        if not claim.beyond_null:
            return said
        excess = _estimate([r.value - r.null for r in self.readings.values()])
        return beyond_null(said, excess, claim.thresholds.above)

    def as_json(self) -> dict[str, Any]:
        """Everything, as plain values; None for what does not exist."""
        claim = self.claim
        return {
            **{
                name: getattr(claim, name)
                for name in ("name", "says", "source", "number", "unit", "shown_by", "beyond_null")
            },
            "null_is": claim.null,
            "thresholds": dataclasses.asdict(claim.thresholds),
            "by_seed": {
                str(seed): {"value": _plain(r.value), "null": _plain(r.null)}
                for seed, r in self.readings.items()
            },
            "seeds": self.seeds,
            **{k: _plain(v) for k, v in self.estimate._asdict().items()},
            "null": {k: _plain(v) for k, v in self.null._asdict().items()},
            "verdict": self.verdict,
            "why": self.reason,
        }


def _estimate(values: Sequence[float]) -> Estimate:
    return over_seeds(values) if any(not math.isnan(v) for v in values) else NOTHING


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def refuse_same_seeds(runs: Sequence[Run]) -> None:
    """Raise where a seed would count twice, which would make an interval narrower than it is."""
    by_seed: dict[int, Run] = {}
    for run in runs:
        other = by_seed.setdefault(run.settings.train.seed, run)
        if other is not run:
            raise UserError(
                f"{shown(other.folder)} and {shown(run.folder)} have the same seed; over seeds, "
                "each counts once: name one of them"
            )


def ask_runs(
    claim: Claim, runs: Sequence[Run], on_run: Callable[[], object] = lambda: None
) -> Answer:
    """Put a claim to runs that differ in their seeds.

    Raises
    ------
    Missing
        the runs cannot answer it.
    """
    refuse_same_seeds(runs)
    readings = {}
    for run in runs:
        readings[run.settings.train.seed] = claim.read(run)
        on_run()
    return Answer(claim, readings, _too_short(claim, runs))


def ask_family(claim: Claim, groups: Sequence[Sequence[Run]]) -> Answer:
    """Put a claim to groups of runs that differ in one setting, lowest first.

    Only seeds that every group has are asked: an interval over seeds is one over whole families.

    Raises
    ------
    Missing
        one group only, or no seed that all have.
    """
    for runs in groups:
        refuse_same_seeds(runs)
    by_seed = [{run.settings.train.seed: run for run in runs} for runs in groups]
    seeds = [seed for seed in by_seed[0] if all(seed in of_group for of_group in by_seed)]
    if len(groups) < 2 or not seeds:
        lacking = "a seed that all of them have" if len(groups) > 1 else f"two values of {claim.of}"
        raise Missing(f"it needs runs with {lacking}")
    families = {seed: [of_group[seed] for of_group in by_seed] for seed in seeds}
    readings = {seed: claim.read(family) for seed, family in families.items()}
    asked = [run for family in families.values() for run in family]
    return Answer(claim, readings, _too_short(claim, asked))


def ask_study(claim: Claim, study: Study) -> Answer:
    """Put a claim to the results of a study of neuron death."""
    first = study.base.train.seed
    return Answer(claim, {first + i: r for i, r in enumerate(claim.read(study))})


def _too_short(claim: Claim, runs: Sequence[Run]) -> str:
    return next(filter(None, (too_short(run, claim.reach) for run in runs)), "")
