"""What moved a pre-activation in one update: an exact split into own weights, bias and input."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minirelu import compute
from minirelu.compute import Workspace, evaluate
from minirelu.errors import UserError
from minirelu.model.parameters import Parameters
from minirelu.runs.checkpoint import load_params, load_slots, new_slots
from minirelu.runs.run import Run
from minirelu.text.batches import batch
from minirelu.training.schedule import learning_rate
from minirelu.training.trainer import accumulated_grads

Look = Callable[[int, int, np.ndarray], None]  # layer, first token, MLP input (N, C)
# The parts, in the order of ``Split.parts``. "own" is what the unit's weights and bias did.
PARTS = ("gradient", "momentum", "decay", "bias", "input")


@dataclass
class Split:
    """How one update changed each unit of a layer.

    ``before``, ``after`` : (F,) float64, the pre-activation, before and after the update, at the
    token of the probe where it is largest before: the unit's margin, followed at that token.
    ``parts`` : (5, F) float64, what the change is made of, in the order of :data:`PARTS`; they sum
    to ``after - before``, to rounding.
    ``grad_norm``, ``update_ratio`` : (F,) float64, length of the gradient of the row of W_in, and
    length of its update as a share of its own.
    """

    before: np.ndarray
    after: np.ndarray
    parts: np.ndarray
    grad_norm: np.ndarray
    update_ratio: np.ndarray


def split_update(run: Run, step: int) -> list[Split]:
    """Make the update after a step again, and split what it does to every unit.

    With w, x, b before and w', x', b' after the update, exactly::

        w'x' + b' - (w x + b) = (w' - w)(x + x')/2 + (b' - b) + (w + w')/2 (x' - x)
                                 own weights         bias        input

    Adam's ``w' - w`` is ``-lr (m / (sqrt(v) + eps) + decay w)``, bias corrections left out, and its
    new mean ``m = beta1 m_before + (1 - beta1) g``: so the own part comes apart into this step's
    gradient, the momentum of earlier ones, and decay. The bias counts as one.

    Parameters
    ----------
    run : Run
        trained with ``adamw``.
    step : int
        one with optimizer state on disk.

    Returns
    -------
    list of L Split

    Raises
    ------
    UserError
        another optimizer, or no optimizer state of that step.
    """
    train, config = run.settings.train, run.config
    if train.optimizer != "adamw":
        raise UserError(f"splitting an update needs adamw, and {run.name} has {train.optimizer}")
    params = load_params(run.checkpoints, step, config)
    slots = load_slots(run.checkpoints, step, new_slots(run.settings))
    workspace, t = Workspace(), step + 1
    sequences = batch(
        run.train_tokens, train.batch_step(t), train.batch_size, config.n_ctx, train.batch_seed
    )
    _, _, grads = accumulated_grads(params, sequences, config, train, workspace)
    grad_norm = compute.global_norm(grads, train.compute)
    g_scale = train.clip_norm / grad_norm if 0 < train.clip_norm < grad_norm else 1.0
    moved = [Parameters(config) for _ in range(3)]  # params, m and v after the update
    for new, old in zip(moved, (params, slots["m"], slots["v"]), strict=True):
        new.flat[:] = old.flat
    lr = learning_rate(t, train)
    compute.update(moved[0], grads, {"m": moved[1], "v": moved[2]}, t, lr, train, grad_norm)

    x, token = _at_largest(params, run, workspace)
    x_after = _at_tokens(moved[0], run, workspace, token)
    splits = []
    for l in range(config.n_layers):
        name = f"blocks.{l}.mlp.W_in"
        b = f"blocks.{l}.mlp.b_in"
        w, w_after = (p[name].astype(np.float64) for p in (params, moved[0]))
        db = moved[0][b].astype(np.float64) - params[b] if b in params else np.zeros(len(w))
        bias = params[b] if b in params else np.zeros(len(w))
        g, m, v = (p[name].astype(np.float64) for p in (grads, slots["m"], moved[2]))
        scale = -lr / (1 - train.beta1**t) / (np.sqrt(v / (1 - train.beta2**t)) + train.adam_eps)
        weights = (
            scale * (1 - train.beta1) * g_scale * g,
            scale * train.beta1 * m,
            -lr * train.weight_decay * w,
        )
        between = (x[l] + x_after[l]) / 2
        parts = [(part * between).sum(axis=1) for part in weights]
        parts += [db, ((w + w_after) / 2 * (x_after[l] - x[l])).sum(axis=1)]
        before = (w * x[l]).sum(axis=1) + bias
        splits.append(
            Split(
                before,
                (w_after * x_after[l]).sum(axis=1) + bias + db,
                np.array(parts),
                np.linalg.norm(g, axis=1),
                np.linalg.norm(w_after - w, axis=1) / np.linalg.norm(w, axis=1),
            )
        )
    return splits


def _at_largest(
    params: Parameters, run: Run, workspace: Workspace
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Each unit's MLP input where its pre-activation is largest, (F, C), and at which token."""
    config = run.config
    x_at = [np.zeros((F, config.d_model)) for F in config.mlp_widths]
    token = [np.zeros(F, np.int64) for F in config.mlp_widths]
    largest = [np.full(F, -np.inf, params.dtype) for F in config.mlp_widths]

    def look(l: int, first: int, x: np.ndarray) -> None:
        pre = params[f"blocks.{l}.mlp.W_in"] @ x.T  # (F, N); the bias does not change which
        at = pre.argmax(axis=1)
        highest = pre[np.arange(len(at)), at]
        better = highest > largest[l]
        largest[l][better] = highest[better]
        x_at[l][better] = x[at[better]]
        token[l][better] = first + at[better]

    _read_probe(params, run, workspace, look)
    return x_at, token


def _at_tokens(
    params: Parameters, run: Run, workspace: Workspace, token: list[np.ndarray]
) -> list[np.ndarray]:
    """Each unit's MLP input at a given token of the probe, (F, C)."""
    x_at = [np.zeros((len(at), run.config.d_model)) for at in token]

    def look(l: int, first: int, x: np.ndarray) -> None:
        here = (token[l] >= first) & (token[l] < first + len(x))
        x_at[l][here] = x[token[l][here] - first]

    _read_probe(params, run, workspace, look)
    return x_at


def _read_probe(params: Parameters, run: Run, workspace: Workspace, look: Look) -> None:
    """Call ``look(l, first token, x)`` with every layer's MLP input, a few sequences at a time."""
    train, T = run.settings.train, run.config.n_ctx
    at_once = train.batch_size // train.micro_batches
    for i in range(0, len(run.probe_tokens), at_once):
        part = run.probe_tokens[i : i + at_once]
        evaluate(
            params, part[:, :-1], part[:, 1:], run.config, train.compute, workspace,
            functools.partial(_look_from, look, i * T),
        )  # fmt: skip


def _look_from(look: Look, first: int, l: int, x: np.ndarray) -> None:
    look(l, first, x)
