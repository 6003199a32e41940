"""Units that do little, whether or not they are silent (Sokar et al. 2023, arXiv 2302.12902)."""

from __future__ import annotations

import numpy as np

from minirelu.errors import UserError
from minirelu.sparsity.counts import UnitCounts
from minirelu.sparsity.usage import require_counts


def dormancy_scores(counts: UnitCounts) -> list[np.ndarray]:
    """Each unit's mean activation over the layer's: s_j = E|h_j| / mean_k E|h_k|.

    Definition 3.1 of the paper. The scores of a layer have the mean 1; a unit that is silent on
    these tokens has 0. Activations are added up in units of 2**-20, rounded down.

    Parameters
    ----------
    counts : UnitCounts

    Returns
    -------
    list of L arrays, (F,) float64
        all NaN where no unit of the layer was on.

    Raises
    ------
    ValueError
        nothing was counted yet.

    Examples
    --------
    >>> import minirelu as mr
    >>> config = mr.ModelConfig(n_layers=1, n_heads=1, d_model=2, d_mlp=4, n_ctx=2, d_vocab=5)
    >>> counts = mr.UnitCounts(config)
    >>> counts.update({"blocks.0.mlp.hook_post": np.array([[[1.0, 0, 0, 0], [2, 1, 0, 0]]])})
    >>> dormancy_scores(counts), dormant_share(counts)
    ([array([3., 1., 0., 0.])], array([0.5]))
    """
    require_counts(counts)
    return [layer_scores(total) for total in counts.total]


def layer_scores(total: np.ndarray) -> np.ndarray:
    """Return the scores of one layer's units from their activations, summed or averaged.

    >>> layer_scores(np.array([3.0, 1.0, 0.0, 0.0]))
    array([3., 1., 0., 0.])
    """
    with np.errstate(invalid="ignore"):  # nothing on: 0 / 0
        return total / total.mean()


def dormant_share(counts: UnitCounts, tau: float = 0.025) -> np.ndarray:
    """Share of each layer's units that are tau-dormant: a score of at most ``tau``.

    Parameters
    ----------
    counts : UnitCounts
    tau : float
        0 or more; 0.025 is the paper's.

    Returns
    -------
    ndarray, (L,)
        1 where no unit of the layer was on.

    Raises
    ------
    ValueError
        nothing was counted yet, or ``tau`` is below 0.
    """
    if not tau >= 0:
        raise UserError(f"tau: {tau!r} is not allowed; it must be 0 or more")
    return np.array([1 - (s > tau).mean() for s in dormancy_scores(counts)])
