"""What can be removed from a model: curves by criterion and scope, for one run and over seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minirelu.errors import UserError
from minirelu.intervals import Estimate, over_seeds
from minirelu.model.parameters import Parameters
from minirelu.pruning.curves import LIMITS, SHARES, curve, quality, removable
from minirelu.pruning.rankings import CRITERIA, evidence, scores


def scopes_of(n_layers: int) -> list[str | int]:
    """All there are: each layer alone, the same share of each, all layers together.

    >>> scopes_of(2)
    [0, 1, 'each', 'global']
    """
    return [*range(n_layers), "each", "global"]


def survey(
    params: Parameters,
    ranking_text: np.ndarray,
    text: np.ndarray,
    criteria: Sequence[str] = tuple(CRITERIA),
    scopes: Sequence[str | int] | None = None,
    second_moment: Parameters | None = None,
    compute: str = "auto",
    seed: int = 0,
    on_point: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Measure the curves of one model.

    Parameters
    ----------
    params : Parameters
    ranking_text, text : int ndarray, (S, T + 1)
        what units are scored on; and what the pruned models are measured on, which should share
        nothing with the first.
    criteria, scopes : sequence
        all by default.
    second_moment : Parameters, optional
        Adam's ``v``, which ``second_order`` needs.
    compute : {"auto", "dense", "sparse", "reference"}
    seed : int
        of the order among equal scores, and of ``random``.
    on_point : callable
        called after every model that was measured.

    Returns
    -------
    dict
        ``loss`` and ``accuracy`` of the whole model, ``silent`` (share of each layer's units that
        are on nowhere in ``ranking_text``), and ``curves``: of each criterion and scope ``by``,
        ``scope``, ``points`` (see :func:`minirelu.pruning.curves.curve`), and ``removable``, the
        largest share within each of the ``limits``.
    """
    config = params.config
    found = evidence(params, ranking_text, config, compute, second_moment)
    whole = quality(params, text, config, compute)
    curves = []
    for by in criteria:
        of_layers = scores(found, by)
        for scope in scopes_of(config.n_layers) if scopes is None else scopes:
            points = curve(params, of_layers, text, scope, SHARES, compute, seed, on_point)
            most = [removable(points, whole.loss, limit) for limit in LIMITS]
            curves.append({"by": by, "scope": scope, "points": points, "removable": most})
    return {
        **whole._asdict(),
        "silent": [float((on == 0).mean()) for on in found.counts.tokens_on],
        "limits": list(LIMITS),
        "curves": curves,
    }


def removable_over_seeds(
    surveys: Sequence[dict[str, Any]], by: str, scope: str | int, limit: float
) -> Estimate:
    """Largest share removable within a limit: mean over models, with its interval."""
    shares = [
        c["removable"][s["limits"].index(limit)]
        for s in surveys
        for c in s["curves"]
        if (c["by"], c["scope"]) == (by, scope)
    ]
    if not shares:
        raise UserError(f"no curve by {by} of {scope}")
    return over_seeds(shares)
