"""Which hidden units would be missed least: scores by six criteria, from one reading of a text.

A unit's score says how much it should be missed; units are removed from the lowest score up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from minirelu.compute import Workspace, loss_and_grads
from minirelu.config import ModelConfig
from minirelu.errors import UserError, nearest, one_line
from minirelu.model.parameters import Parameters
from minirelu.model.unit_activity import PER_ONE
from minirelu.sparsity.counts import UnitCounts
from minirelu.sparsity.measure import measure

Scores = list[np.ndarray]  # of each layer's units, (F,) float64
_TOKENS_PER_GRADIENT = 2048  # of the text, at a time


@dataclass
class Evidence:
    """What a model's units did on a text.

    ``params`` : its weights. ``counts`` : how often units were on, and how strongly.
    ``first_order`` : L arrays (F,), mean over parts of the text of ``|W_out[j] . dL/dW_out[j]|``.
    ``second_moment`` : Adam's running mean of the squared gradient; None where it is not known.
    """

    params: Parameters
    counts: UnitCounts
    first_order: Scores
    second_moment: Parameters | None

    def W_out(self, l: int) -> np.ndarray:
        """What the units of a layer write, (F, C)."""
        return self.params[f"blocks.{l}.mlp.W_out"]


@dataclass(frozen=True)
class Criterion:
    """``score(evidence, l)`` gives those of a layer's units, (F,)."""

    what: str
    score: Callable[[Evidence, int], np.ndarray]
    source: str = ""


def _contribution(e: Evidence, l: int) -> np.ndarray:
    mean = e.counts.total[l] / PER_ONE / e.counts.n_tokens
    return mean * np.linalg.norm(e.W_out(l), axis=1)


def _second_order(e: Evidence, l: int) -> np.ndarray:
    if e.second_moment is None:
        raise UserError(
            "second_order needs Adam's second moment, which only the last checkpoints of a run "
            "trained with adamw hold; choose another --by, or another --step"
        )
    v = e.second_moment[f"blocks.{l}.mlp.W_out"]
    return (v.astype(np.float64) * np.square(e.W_out(l), dtype=np.float64)).sum(axis=1) / 2


CRITERIA: dict[str, Criterion] = {
    "silent": Criterion(
        "silent on the text first, the others in any order",
        lambda e, l: (e.counts.tokens_on[l] > 0).astype(np.float64),
    ),
    "frequency": Criterion(
        "on at the fewest tokens first", lambda e, l: e.counts.tokens_on[l].astype(np.float64)
    ),
    "contribution": Criterion(
        "the smallest mean length of what the unit writes first", _contribution
    ),
    "first_order": Criterion(
        "the smallest first-order estimate of the change in loss first",
        lambda e, l: e.first_order[l],
        "Molchanov et al. 2017, arXiv 1611.06440",
    ),
    "second_order": Criterion(
        "the smallest second-order estimate first, with Adam's second moment as the curvature",
        _second_order,
        "LeCun, Denker & Solla 1989, Optimal Brain Damage",
    ),
    "random": Criterion(
        "in random order: the control", lambda e, l: np.zeros(len(e.counts.tokens_on[l]))
    ),
}


def evidence(
    params: Parameters,
    sequences: np.ndarray,
    config: ModelConfig,
    compute: str = "auto",
    second_moment: Parameters | None = None,
    on_read: Callable[[int], object] = lambda n: None,
) -> Evidence:
    r"""Read a text and note what removing units may cost.

    If unit j were removed, the loss would change to first order by
    ``-sum_n post[n, j] dL/dpost[n, j]``, the sum over the tokens. Since
    ``dL/dpost[n, j] = W_out[j] . dL/dy[n]`` and ``dL/dW_out[j] = sum_n post[n, j] dL/dy[n]``, this
    is ``-W_out[j] . dL/dW_out[j]``, which the backward pass has made already.

    Parameters
    ----------
    params : Parameters
    sequences : int ndarray, (S, T + 1)
    config : ModelConfig
    compute : {"auto", "dense", "sparse", "reference"}
    second_moment : Parameters, optional
        Adam's ``v``.
    on_read : callable
        called with the number of tokens just read; the text is read twice.

    Returns
    -------
    Evidence

    Raises
    ------
    UserError
        no sequences, or of the wrong shape, type or range.
    """
    if not len(sequences):
        raise UserError("there is no text to rank units on: no whole sequence")
    workspace = Workspace()
    T = sequences.shape[1] - 1
    counts, first = UnitCounts(config), [np.zeros(F) for F in config.mlp_widths]
    grads = Parameters(config, params.dtype)
    at_once = max(1, _TOKENS_PER_GRADIENT // T)
    for i in range(0, len(sequences), at_once):
        part = sequences[i : i + at_once]
        counts.merge(measure(params, part, config, compute, workspace)[0])
        on_read(len(part) * T)
        loss_and_grads(params, part[:, :-1], part[:, 1:], config, compute, workspace, grads)
        for l, score in enumerate(first):
            name = f"blocks.{l}.mlp.W_out"
            score += len(part) / len(sequences) * np.abs((params[name] * grads[name]).sum(axis=1))
        on_read(len(part) * T)
    return Evidence(params, counts, first, second_moment)


def scores(found: Evidence, by: str) -> Scores:
    """Score every unit by a criterion: one array (F,) for each layer; low ones go first.

    Raises
    ------
    UserError
        there is no such criterion, or the evidence lacks what it needs.
    """
    if by not in CRITERIA:
        raise UserError(
            f"there is no criterion {one_line(repr(by))}; there are "
            f"{', '.join(CRITERIA)}{nearest(by, CRITERIA)}"
        )
    return [CRITERIA[by].score(found, l) for l in range(len(found.first_order))]


def order(of_layers: Sequence[np.ndarray], seed: int = 0) -> list[np.ndarray]:
    """Units of each layer, those to be removed first in front; equal scores in random order.

    >>> [o.tolist() for o in order([np.array([3.0, 1.0, 2.0])])]
    [[1, 2, 0]]
    """
    rng = np.random.default_rng(seed)
    return [np.lexsort((rng.random(len(s)), s)) for s in of_layers]


def keep(of_layers: Scores, share: float, scope: str | int = "each", seed: int = 0) -> Scores:
    """Mark the units that stay when a share is removed.

    Parameters
    ----------
    of_layers : list of L arrays, (F,)
        scores; the lowest go.
    share : float
        from 0 to 1, of the units; a number of units is rounded to the nearest.
    scope : "each", "global" or int
        the share is taken from each layer; or from all layers together, scores compared across
        layers; or from the layer of that number alone.
    seed : int
        of the order among equal scores.

    Returns
    -------
    list of L arrays, (F,) bool

    Raises
    ------
    UserError
        another share or scope.

    Examples
    --------
    >>> of_layers = [np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.0, 0.1, 0.2, 9.0])]
    >>> [k.astype(int).tolist() for k in keep(of_layers, 0.5)]
    [[0, 0, 1, 1], [0, 0, 1, 1]]
    >>> [k.astype(int).tolist() for k in keep(of_layers, 0.5, "global")]
    [[0, 1, 1, 1], [0, 0, 0, 1]]
    >>> [k.astype(int).tolist() for k in keep(of_layers, 0.5, 1)]
    [[1, 1, 1, 1], [0, 0, 1, 1]]
    """
    if not 0 <= share <= 1:
        raise UserError(f"share: {share!r} is not allowed; it must be from 0 to 1")
    widths = [len(s) for s in of_layers]
    if scope == "global":
        together = np.concatenate(of_layers)
        removed = order([together], seed)[0][: round(share * len(together))]
        stays = np.ones(len(together), bool)
        stays[removed] = False
        return np.split(stays, np.cumsum(widths)[:-1])
    if scope == "each":
        n_removed = [round(share * F) for F in widths]
    elif isinstance(scope, int) and 0 <= scope < len(widths):
        n_removed = [round(share * F) if l == scope else 0 for l, F in enumerate(widths)]
    else:
        raise UserError(
            f"scope: {one_line(repr(scope))} is not allowed; it must be each, global, or a layer "
            f"from 0 to {len(widths) - 1}"
        )
    return keep_widths(of_layers, [F - n for F, n in zip(widths, n_removed, strict=True)], seed)


def keep_widths(of_layers: Scores, widths: Sequence[int], seed: int = 0) -> Scores:
    """Mark the ``widths[l]`` units of each layer that have the highest scores.

    Raises
    ------
    UserError
        more units than there are.

    Examples
    --------
    >>> keep_widths([np.array([5.0, 7.0, 6.0])], [2])
    [array([False,  True,  True])]
    """
    stay = []
    for l, (of_layer, width) in enumerate(zip(order(of_layers, seed), widths, strict=True)):
        if not 0 <= width <= len(of_layer):
            raise UserError(
                f"layer {l} has {len(of_layer)} hidden units; {width} of them cannot be kept"
            )
        stays = np.ones(len(of_layer), bool)
        stays[of_layer[: len(of_layer) - width]] = False
        stay.append(stays)
    return stay
