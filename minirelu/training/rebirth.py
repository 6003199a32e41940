"""Interventions that re-initialise hidden units: the dormant ones, or those of the lowest utility.

A unit that is reborn begins as in a new model, except that it writes nothing yet: a fresh row of
``W_in``, a bias of 0, and a row of ``W_out`` that is 0, so that the model computes what it would
without the unit. To the optimizer it is new: its slots (both moments of Adam) are 0 for all three,
and it counts its steps from its rebirth. Adam divides by ``1 - beta**step`` to make up for moments
that begin at 0; by the run's own step, long past that, a unit's first steps would have the wrong
length. And as a running mean begins at 0 too, a unit's utility is divided by ``1 - keep**age``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from minirelu.settings import setting
from minirelu.training.optimizers import adam_direction
from minirelu.training.update import Intervention, Update

# beta**step below this is lost in rounding: the correction for the start is 1 by any count.
_FORGOTTEN = 1e-9


@dataclass(frozen=True)
class _Rebirth(Intervention):
    """Re-initialise the units that ``chosen`` names; what that takes is said above."""

    not_with: ClassVar[tuple[str, ...]] = ("redo", "replace", "centre", "unit_clip", "unit_shrink")

    def acts_at(self, step: int) -> bool:
        """Also after ``last``, when units reborn go on counting their own steps."""
        return self.first <= step

    def chosen(self, update: Update) -> list[np.ndarray]:
        """The units of each layer to re-initialise after this update, int; none: no layers."""
        raise NotImplementedError

    def around(self, update: Update) -> Iterator[None]:
        chosen = self.chosen(update) if super().acts_at(update.step) else []
        young = [Young(update, l) for l in range(update.params.config.n_layers)]
        yield
        for layer in young:
            layer.take_own_step(update)
        for l, units in enumerate(chosen):
            reinitialise(update, l, units)
        if chosen:
            update.notes["units_reborn"] = [len(units) for units in chosen]


class Young:
    """Units of a layer reborn not long ago, as they are before an update."""

    def __init__(self, update: Update, l: int) -> None:
        age = update.step - born(update, l)  # own steps, with this one
        settings, params = update.settings, update.params
        # no other optimizer corrects for its start
        beta = max(settings.beta1, settings.beta2) if settings.optimizer == "adamw" else 0.0
        self.units = np.flatnonzero((age < update.step) & (beta**age > _FORGOTTEN))
        self.age = age[self.units]
        self.before = {name: params[name][self.units] for name in unit_names(update, l)}

    def take_own_step(self, update: Update) -> None:
        """Make the step that Adam has made again, from its moments, by each unit's own count."""
        if not len(self.units):
            return
        how, slots = update.settings, update.state.slots
        for name, p in self.before.items():
            m, v = (slots[slot][name][self.units] for slot in ("m", "v"))
            age, decay = (self.age[:, None], how.weight_decay) if p.ndim == 2 else (self.age, 0.0)
            direction = adam_direction(m, v, age, how.beta1, how.beta2, how.adam_eps)
            update.params[name][self.units] = p - update.lr * (direction + decay * p)


def reinitialise(update: Update, l: int, units: np.ndarray) -> None:
    """Let units of layer l begin anew, (n,) int."""
    from minirelu.model.parameters import initial_rows

    params, W_in = update.params, f"blocks.{l}.mlp.W_in"
    rows = initial_rows(W_in, len(units), params.config, update.rng("rebirth", l))
    for name in unit_names(update, l):
        params[name][units] = rows if name == W_in else 0
        for slot in update.state.slots.values():
            slot[name][units] = 0
    born(update, l)[units] = update.step


def unit_names(update: Update, l: int) -> list[str]:
    """Parameters of which hidden units have a row, or a number, each."""
    names = [f"blocks.{l}.mlp.{name}" for name in ("W_in", "b_in", "W_out")]
    return [name for name in names if name in update.params]


def born(update: Update, l: int) -> np.ndarray:
    """After which step each unit was last re-initialised, (F,) int; 0: never."""
    F = update.params.config.mlp_widths[l]
    return update.state.memory.setdefault(f"born.{l}", np.zeros(F, np.int64))


@dataclass(frozen=True)
class Redo(_Rebirth):
    """Re-initialise dormant units every so many steps: ReDo (Sokar et al. 2023, arXiv 2302.12902).

    Dormant is a unit whose mean activation (without its sign) over the step's batch is at most
    ``tau`` times the mean of its layer's. Their incoming weights are drawn anew and the outgoing
    ones are 0, as in the paper; what the optimizer and the bias need beside that is said at the
    top of ``training/rebirth.py``.

    >>> from minirelu.training.interventions import parse_interventions
    >>> redo, = parse_interventions(["redo tau=0.1 every=50 last=400"])
    >>> redo.tau, redo.every
    (0.1, 50)
    """

    tau: float = setting(
        float, "Dormant is what has this share of the layer's mean activation or less.",
        default=0.025, low=0, high=1e9,
    )  # fmt: skip
    every: int = setting(int, "At multiples of this step.", default=100, low=1, high=1 << 31)

    def chosen(self, update: Update) -> list[np.ndarray]:
        if update.step % self.every:
            return []
        means = [units.mean_post for units in update.units]
        return [np.flatnonzero(mean <= self.tau * mean.mean()) for mean in means]


@dataclass(frozen=True)
class Replace(_Rebirth):
    """Re-initialise the units of lowest utility: continual backprop (Dohare et al. 2024, Nature).

    Also arXiv 2306.13812, algorithm 1. At each step a unit's utility takes in the mean of its
    activation (without its sign) over the batch, times the sum of its outgoing weights' sizes.
    Of the units older than ``maturity`` steps, a share ``rate`` is replaced at each step, those of
    the lowest utility first; the fractions of a unit add up from step to step, for each layer. It
    costs a forward pass at each step. The unit's mean output is not added to the layer's bias.

    >>> from minirelu.training.interventions import parse_interventions
    >>> replace, = parse_interventions(["replace rate=1e-3"])
    >>> replace.rate, replace.maturity
    (0.001, 100)
    """

    rate: float = setting(
        float, "Share of the mature units replaced at each step.", default=1e-4, low=0, high=1
    )
    maturity: int = setting(
        int, "Steps that a unit has at least, before it may be replaced.", default=100, low=0,
        high=1 << 31,
    )  # fmt: skip
    keep: float = setting(
        float, "Share of the utility kept at each step.", default=0.99, low=0, high=0.999999
    )

    def chosen(self, update: Update) -> list[np.ndarray]:
        return [self._of_layer(update, l) for l in range(len(update.units))]

    def _of_layer(self, update: Update, l: int) -> np.ndarray:
        """Take in what the layer does at this step, and choose."""
        memory, mean_post = update.state.memory, update.units[l].mean_post
        utility = memory.setdefault(f"replace.utility.{l}", np.zeros(len(mean_post)))
        age = memory.setdefault(f"replace.age.{l}", np.zeros(len(mean_post), np.int64))
        due = memory.setdefault(f"replace.due.{l}", np.zeros(1))
        written = np.abs(update.params[f"blocks.{l}.mlp.W_out"]).sum(axis=1, dtype=np.float64)
        utility += (1 - self.keep) * (mean_post * written - utility)
        age += 1
        mature = np.flatnonzero(age > self.maturity)
        due += self.rate * len(mature)
        n = int(due[0])
        due -= n
        corrected = utility[mature] / (1 - self.keep ** age[mature])
        lowest = mature[np.argsort(corrected, kind="stable")[:n]]
        utility[lowest], age[lowest] = 0, 0
        return lowest
