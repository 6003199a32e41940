"""Experiments that tell the explanations of neuron death apart, one in each file."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

from minirelu.errors import UserError

if TYPE_CHECKING:
    from minirelu.death.study import Study
    from minirelu.death.verdicts import Result


class Experiment(NamedTuple):
    """An experiment by the name of its file, and what it asks.

    The file has ``ARMS``, what it compares (none where it asks about one arm, ``base`` or another);
    ``PREDICTIONS``, what each explanation says of it; and ``run``, which does it. It is loaded when
    it is needed.
    """

    name: str
    what: str

    def arms(self, arm: str = "base") -> tuple[str, ...]:
        """Arms of a study that it needs: those it compares, or the one that it asks about."""
        compared = self._module.ARMS
        if compared and arm != "base":
            raise UserError(f"{self.name} compares {', '.join(compared)}; leave out --arm {arm}")
        return compared or (arm,)

    def run(self, study: Study, arm: str = "base") -> Result:
        """Do it, with runs that are trained."""
        self.arms(arm)
        result: Result = self._module.run(study, *([] if self._module.ARMS else [arm]))
        result.arm = arm
        return result

    @property
    def _module(self) -> Any:
        return importlib.import_module(f"{__name__}.{self.name}")


EXPERIMENTS = {
    e.name: e
    for e in (
        Experiment("twins", "Do the same units die when the batches are others?"),
        Experiment(
            "clock",
            "What is the clock of dying: steps, the sum of rates, or that of their squares?",
        ),
        Experiment(
            "burst", "Do deaths come in bursts, and do these follow spikes of gradient or loss?"
        ),
        Experiment(
            "approach", "How does a unit's margin come down before its death, and what pulls it?"
        ),
        Experiment("predict", "Can it be told early who will die, and from what?"),
        Experiment("revive", "Do units that died come back, and is it more than flicker?"),
        Experiment("replay", "Had one batch been another one, would the same units have died?"),
        Experiment(
            "intervene",
            "Which change of the training keeps units from falling silent, and at what loss?",
        ),
    )
}
