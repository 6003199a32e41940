"""What pruning costs: loss and accuracy against the share of hidden units removed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from minirelu.compute import Workspace, evaluate
from minirelu.config import ModelConfig
from minirelu.model.parameters import Parameters
from minirelu.pruning.rankings import Scores, keep
from minirelu.pruning.smaller import smaller

# Shares that are removed, finer where curves rise.
SHARES = (0.1, 0.25, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
LIMITS = (0.001, 0.01)  # rises in loss, as shares of it, that tables ask about
_AT_ONCE_TOKENS = 4096


class Quality(NamedTuple):
    """How well a model predicts a text: mean loss in nats, and share of next tokens guessed."""

    loss: float
    accuracy: float


def quality(
    params: Parameters,
    sequences: np.ndarray,
    config: ModelConfig,
    compute: str = "auto",
    workspace: Workspace | None = None,
) -> Quality:
    """Measure loss and next-token accuracy: how often the likeliest token is the one that came.

    Parameters
    ----------
    params : Parameters
    sequences : int ndarray, (S, T + 1)
    config : ModelConfig
    compute : {"auto", "dense", "sparse", "reference"}
    workspace : Workspace, optional

    Returns
    -------
    Quality

    Examples
    --------
    >>> import minirelu as mr
    >>> config = mr.ModelConfig(n_layers=1, n_heads=2, d_model=4, d_mlp=8, n_ctx=6, d_vocab=10)
    >>> found = quality(mr.init_params(config), np.arange(14).reshape(2, 7) % 10, config)
    >>> round(found.loss, 1)
    2.3
    """
    workspace = workspace or Workspace()
    nats, hits = 0.0, 0
    at_once = max(1, _AT_ONCE_TOKENS // (sequences.shape[1] - 1))
    for i in range(0, len(sequences), at_once):
        tokens, targets = sequences[i : i + at_once, :-1], sequences[i : i + at_once, 1:]

        def count(logits: np.ndarray, targets: np.ndarray = targets) -> None:
            nonlocal hits
            hits += int((logits.argmax(axis=-1) == targets).sum())

        losses, _ = evaluate(params, tokens, targets, config, compute, workspace, on_logits=count)
        nats += float(losses.sum(dtype=np.float64))
    n = sequences[:, 1:].size
    return Quality(nats / n, hits / n)


def curve(
    params: Parameters,
    of_layers: Scores,
    sequences: np.ndarray,
    scope: str | int,
    shares: Sequence[float] = SHARES,
    compute: str = "auto",
    seed: int = 0,
    on_point: Callable[[], object] = lambda: None,
) -> list[dict[str, Any]]:
    """Remove more and more units, and measure the model that is left.

    Parameters
    ----------
    params : Parameters
    of_layers : list of L arrays, (F,)
        scores; the lowest go first.
    sequences : int ndarray, (S, T + 1)
        text to measure on; not the one that the scores are from.
    scope : "each", "global" or int
        see :func:`minirelu.pruning.rankings.keep`.
    shares : sequence of float
    compute : {"auto", "dense", "sparse", "reference"}
    seed : int
        of the order among equal scores.
    on_point : callable
        called after each share.

    Returns
    -------
    list of dict
        for each share ``share``, ``widths`` (what is left of each layer), ``loss``, ``accuracy``.
    """
    workspace, points = Workspace(), []
    for share in shares:
        stay = keep(of_layers, share, scope, seed)
        left = smaller(params, stay)
        found = quality(left, sequences, left.config, compute, workspace)
        widths = [int(k.sum()) for k in stay]
        points.append({"share": share, "widths": widths, **found._asdict()})
        on_point()
    return points


def removable(points: Sequence[dict[str, Any]], base: float, limit: float) -> float:
    """Largest share of units that can go before the loss has risen by ``limit`` of ``base``.

    Between the shares that were measured the loss is taken as a straight line, beginning at
    ``base``; where it has first crossed the limit is the answer, whatever comes after it.

    Examples
    --------
    >>> points = [{"share": 0.5, "loss": 4.0}, {"share": 1.0, "loss": 4.4}]
    >>> round(removable(points, base=4.0, limit=0.01), 3)
    0.55
    """
    most = base * (1 + limit)
    for before, after in itertools.pairwise([{"share": 0.0, "loss": base}, *points]):
        if after["loss"] > most:
            rise = after["loss"] - before["loss"]
            part = (most - before["loss"]) / rise
            return float(before["share"] + part * (after["share"] - before["share"]))
    return 1.0
