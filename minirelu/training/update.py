"""One update of a training as interventions see it, and what all interventions have."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from minirelu.settings import Checked, setting

if TYPE_CHECKING:
    from minirelu.config import ModelConfig, TrainConfig
    from minirelu.model.parameters import Parameters
    from minirelu.sparsity.unit_states import UnitStates
    from minirelu.training.state import State


@dataclass
class Update:
    """One update: its gradients may be changed before it is made, the parameters afterwards.

    Attributes
    ----------
    state : State
        weights (also as ``params``), the optimizer's slots, and ``memory``: arrays by name that
        interventions keep from step to step, saved in checkpoints.
    grads : Parameters
    step : int
        1 for the first.
    lr : float
    settings : TrainConfig
    watch : callable
        runs the step's batch through the model; see ``units``.
    notes : dict
        goes into the step's record in ``metrics.jsonl``.
    """

    state: State
    grads: Parameters
    step: int
    lr: float
    settings: TrainConfig
    watch: Callable[[], list[UnitStates]]
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def params(self) -> Parameters:
        """The weights, changed in place by the update."""
        return self.state.params

    @cached_property
    def units(self) -> list[UnitStates]:
        """What each layer's units do on the step's batch, and the mean of what they read.

        It costs a forward pass, once for all interventions of a step. Ask before ``yield``: that
        is when the weights are those that the gradients belong to.
        """
        return self.watch()

    def rng(self, name: str, layer: int) -> np.random.Generator:
        """Random numbers that are a function of name, seed of the run, step and layer alone."""
        return np.random.default_rng(
            [zlib.crc32(name.encode()), self.settings.seed, self.step, layer]
        )


@dataclass(frozen=True)
class Intervention(Checked):
    """What all have: the steps, from the first to the last one, at which they act."""

    first: int = setting(int, "First step.", default=1, low=1, high=1 << 31)
    last: int = setting(int, "Last step; 0: the end.", default=0, low=0, high=1 << 31)

    not_with: ClassVar[tuple[str, ...]] = ()  # names of those that it cannot be combined with

    def acts_at(self, step: int) -> bool:
        """Whether it acts at this step; 1 is the first update."""
        return self.first <= step and (not self.last or step <= self.last)

    def check(self, config: ModelConfig) -> None:
        """Raise where the model lacks what is named."""

    def around(self, update: Update) -> Iterator[None]:
        """Act before and after the optimizer's step, which comes at the ``yield``."""
        raise NotImplementedError
