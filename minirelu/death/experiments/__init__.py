"""Experiments that tell the explanations of neuron death apart, one in each file."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from minirelu.death.experiments import approach, burst, intervene, replay, revive, twins
from minirelu.death.study import Study
from minirelu.death.verdicts import Result


class Experiment(NamedTuple):
    """``what`` it asks, in a line; ``arms`` that are trained for it; ``run(study)`` does it."""

    what: str
    arms: tuple[str, ...]
    run: Callable[[Study], Result]


EXPERIMENTS: dict[str, Experiment] = {
    "twins": Experiment(twins.QUESTION, twins.ARMS, twins.twins),
    "burst": Experiment(burst.QUESTION, burst.ARMS, burst.burst),
    "approach": Experiment(approach.QUESTION, approach.ARMS, approach.approach_death),
    "revive": Experiment(revive.QUESTION, revive.ARMS, revive.revive),
    "replay": Experiment(replay.QUESTION, replay.ARMS, replay.replay),
    "intervene": Experiment(intervene.QUESTION, intervene.ARMS, intervene.intervene),
}
