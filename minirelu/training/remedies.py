"""Interventions that test why hidden units fall silent: clipped updates, centred MLP inputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from minirelu.errors import UserError
from minirelu.settings import setting
from minirelu.training.update import Intervention, Update

if TYPE_CHECKING:
    from minirelu.config import ModelConfig
    from minirelu.model.parameters import Parameters


def update_sizes(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """How far each unit's update takes it: ``|after - before| / |before|``.

    Whether a ReLU unit is on does not change when its weights and bias are scaled together, and
    nor does this: it measures by how much an update can turn and shift the unit's boundary.

    Parameters
    ----------
    before, after : ndarray, (F, C + 1)
        each unit's row of ``W_in``, and its ``b_in``.

    Returns
    -------
    ndarray, (F,)
        0 for a unit whose row was 0: it has no scale to compare with.

    Examples
    --------
    >>> before = np.array([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    >>> update_sizes(before, before + [[0.5, 0.0]])
    array([0.1, 1. , 0. ])
    """
    norm = np.linalg.norm(before, axis=1)
    return np.linalg.norm(after - before, axis=1) / np.where(norm > 0, norm, np.inf)


def clip_factors(before: np.ndarray, after: np.ndarray, largest: float) -> np.ndarray:
    """What each unit's update is multiplied by so that none is larger than ``largest``; (F,).

    The share that is clipped is ``np.mean(clip_factors(before, after, largest) < 1)``.

    >>> before = np.array([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    >>> clip_factors(before, before + [[0.5, 0.0]], largest=0.2)
    array([1. , 0.2, 1. ])
    """
    return largest / np.maximum(update_sizes(before, after), largest)


@dataclass(frozen=True)
class _UnitUpdates(Intervention):
    """Multiply the update of each hidden unit's incoming weights by a factor of its own."""

    def factors(
        self, before: np.ndarray, after: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """(F, C + 1) twice -> (F,)."""
        raise NotImplementedError

    def around(self, update: Update) -> Iterator[None]:
        layers = range(update.params.config.n_layers)
        rows_before = [incoming(update.params, l) for l in layers]
        yield
        shares = []
        for l, before in zip(layers, rows_before, strict=True):
            after = incoming(update.params, l)
            factors = self.factors(before, after, update.rng("unit updates", l))
            units = np.flatnonzero(factors != 1)  # the others keep their bits
            rows = before[units] + factors[units, None] * (after[units] - before[units])
            set_incoming(update.params, l, units, rows)
            shares.append(len(units) / len(factors))
        update.notes["unit_updates_scaled"] = shares


@dataclass(frozen=True)
class UnitClip(_UnitUpdates):
    """Scale a hidden unit's update down where it is large for the size of its weights.

    The update is that of the unit's row of ``W_in`` and of its ``b_in``, together; it is compared
    with their size before it, see :func:`update_sizes`. That is Brock et al.'s adaptive clipping
    (2021, arXiv 2102.06171), which compares a unit's gradient with its weights, done to the
    *update* instead, since Adam divides the scale of a gradient out.

    The step's record says which share of each layer's units was scaled:
    ``unit_updates_scaled`` in ``metrics.jsonl``. Set ``largest`` by it.

    The control is ``to=random``: as many units of the layer, at the same steps and by the same
    factors, but drawn at random. If it is large updates that kill, this does not help.

    >>> from minirelu.training.interventions import parse_interventions
    >>> clip, = parse_interventions(["unit_clip largest=0.5"])
    >>> clip.factors(np.array([[2.0], [2.0]]), np.array([[2.5], [6.0]]), np.random.default_rng())
    array([1.  , 0.25])
    """

    largest: float = setting(
        float, "Largest update, as a share of the size of what it changes.", default=0.5,
        low=1e-9, high=1e9,
    )  # fmt: skip
    to: str = setting(
        str, "Which are scaled: the large ones, or as many others.", default="large",
        choices=("large", "random"),
    )  # fmt: skip

    def factors(
        self, before: np.ndarray, after: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        factors = clip_factors(before, after, self.largest)
        return factors if self.to == "large" else rng.permutation(factors)


@dataclass(frozen=True)
class UnitShrink(_UnitUpdates):
    """Scale the updates of hidden units down at random steps: the other control of `unit_clip`.

    Which ones is drawn for each unit and step, from the run's seed. What is scaled is as there.

    >>> from minirelu.training.interventions import parse_interventions
    >>> shrink, = parse_interventions(["unit_shrink share=0.5 factor=0.1"])
    >>> shrink.factors(np.zeros((4, 1)), np.ones((4, 1)), np.random.default_rng(0))
    array([1. , 0.1, 0.1, 0.1])
    """

    share: float = setting(float, "Share of units, at each step.", default=0.01, low=0, high=1)
    factor: float = setting(float, "What is left of their update.", default=0.5, low=0, high=1)

    def factors(
        self, before: np.ndarray, after: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        return np.where(rng.random(len(before)) < self.share, self.factor, 1.0)


@dataclass(frozen=True)
class Centre(Intervention):
    """Train as if each MLP read its input minus the mean of that input.

    With ``m`` the mean input of the layer's MLP over recent batches, the model trained is the one
    whose hidden units see ``w·(x - m) + c``: the mean input then turns no unit on or off. Centring
    is as in Wiesler et al. (2014, "Mean-normalized stochastic gradient") and mean-only batch
    normalisation (Salimans & Kingma 2016, section 4). It is folded into the bias, ``b_in = c -
    w·m``, so that the model saved is an ordinary one. Three things make it exact: the gradient of
    ``w`` is that of the centred model, ``dw - db·m``; the optimizer's step is one of ``w`` and
    ``c``; after it ``b_in`` is folded anew, for the new ``w`` and the new ``m``.

    ``m`` starts as the mean over the first batch and then keeps ``keep`` of itself at each step.
    It is a constant for the gradient, and lags behind the batch: a unit's mean pre-activation is
    ``c`` over recent batches, not within each of them. Only the mean is removed: neither the
    spread of the input nor its scale, nor a mean that differs by token or position. It costs a
    forward pass at each step. After ``last`` the model goes on as the ordinary one that it is.
    """

    not_with: ClassVar[tuple[str, ...]] = ("centre",)
    keep: float = setting(
        float, "Share of the running mean kept at each step.", default=0.9, low=0, high=0.999999
    )

    def check(self, config: ModelConfig) -> None:
        if not config.bias:
            raise UserError("centre: the mean is folded into b_in; the model needs biases (--bias)")

    def around(self, update: Update) -> Iterator[None]:
        params, grads, memory = update.params, update.grads, update.state.memory
        shifts = []
        for l, units in enumerate(update.units):
            W_in, name = params[f"blocks.{l}.mlp.W_in"], f"centre.mean.{l}"
            old = memory.get(name)
            if old is None:  # not centred so far
                old, memory[name] = np.zeros_like(units.mean_input), units.mean_input
            else:
                memory[name] = self.keep * old + (1 - self.keep) * units.mean_input
            grads[f"blocks.{l}.mlp.W_in"][...] -= np.outer(grads[f"blocks.{l}.mlp.b_in"], old)
            shifts.append(W_in @ old)  # c = b_in + this
        yield
        for l, shift in enumerate(shifts):
            new = memory[f"centre.mean.{l}"]
            params[f"blocks.{l}.mlp.b_in"][...] += shift - params[f"blocks.{l}.mlp.W_in"] @ new


def incoming(params: Parameters, l: int) -> np.ndarray:
    """Each unit's row of ``W_in`` and its ``b_in`` side by side: a copy, (F, C + 1).

    (F, C) in a model without biases.
    """
    W_in, b_in = params[f"blocks.{l}.mlp.W_in"], params.get(f"blocks.{l}.mlp.b_in")
    return W_in.copy() if b_in is None else np.column_stack([W_in, b_in])


def set_incoming(params: Parameters, l: int, units: np.ndarray, rows: np.ndarray) -> None:
    """Write rows like those of :func:`incoming` back, (n, C + 1), for the units named."""
    C = params.config.d_model
    params[f"blocks.{l}.mlp.W_in"][units] = rows[:, :C]
    if params.config.bias:
        params[f"blocks.{l}.mlp.b_in"][units] = rows[:, C]
