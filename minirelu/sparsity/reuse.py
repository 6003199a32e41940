"""How soon a sequence stops needing new units (Mirzadeh et al. 2023, arXiv 2310.04564, sec. 5)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minirelu.sparsity.counts import UnitCounts
from minirelu.sparsity.usage import usage


class Reuse(NamedTuple):
    """Share of a layer's units not used in the first t tokens, (L, T) each, t = 1 to T."""

    unused: np.ndarray
    random: np.ndarray


def aggregated_sparsity(counts: UnitCounts) -> Reuse:
    """Share of units that the first t tokens of a sequence leave unused, against random use.

    ``random`` is what t tokens would leave if each used the same number of units, drawn anew:
    ``(1 - per_token)**t``. As far as ``unused`` lies above it, tokens use each other's units.

    Parameters
    ----------
    counts : UnitCounts

    Returns
    -------
    Reuse

    Raises
    ------
    ValueError
        nothing was counted yet.

    Examples
    --------
    One sequence; unit 0 is on at both tokens, unit 1 at the second, units 2 and 3 at none:

    >>> import minirelu as mr
    >>> config = mr.ModelConfig(n_layers=1, n_heads=1, d_model=2, d_mlp=4, n_ctx=2, d_vocab=5)
    >>> counts = mr.UnitCounts(config)
    >>> counts.update({"blocks.0.mlp.hook_post": np.array([[[1.0, 0, 0, 0], [1, 1, 0, 0]]])})
    >>> aggregated_sparsity(counts)
    Reuse(unused=array([[0.75, 0.5 ]]), random=array([[0.625   , 0.390625]]))
    """
    per_token, T = usage(counts).per_token, counts.sequence_length
    used = counts.first_at[:, :T].cumsum(axis=1) / counts.first_at.sum(axis=1, keepdims=True)
    return Reuse(1 - used, (1 - per_token)[:, None] ** np.arange(1, T + 1))
