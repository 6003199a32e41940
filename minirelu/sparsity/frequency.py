"""How often units fire: each unit's rate, and how their rates are spread."""

from __future__ import annotations

import numpy as np

from minirelu.sparsity.counts import UnitCounts
from minirelu.sparsity.usage import require_counts


def firing_frequency(counts: UnitCounts) -> list[np.ndarray]:
    """Share of the tokens at which each unit was on.

    A 0 means silent on ``counts.n_tokens`` tokens, no more: if tokens were independent, its rate
    would be below 3 / n_tokens with 95 % confidence (the rule of three; Hanley & Lippman-Hand
    1983), and tokens are not.

    Parameters
    ----------
    counts : UnitCounts

    Returns
    -------
    list of L arrays, (F,) float64

    Raises
    ------
    ValueError
        nothing was counted yet.

    Examples
    --------
    >>> import minirelu as mr
    >>> config = mr.ModelConfig(n_layers=1, n_heads=1, d_model=2, d_mlp=3, n_ctx=2, d_vocab=5)
    >>> counts = mr.UnitCounts(config)
    >>> counts.update({"blocks.0.mlp.hook_post": np.array([[[1.0, 1, 0], [1, 0, 0]]])})
    >>> firing_frequency(counts)
    [array([1. , 0.5, 0. ])]
    """
    require_counts(counts)
    return [on / counts.n_tokens for on in counts.tokens_on]


def in_sequence_distribution(counts: UnitCounts) -> np.ndarray:
    """Share of the (unit, sequence) pairs in which the unit was on at exactly k positions.

    Parameters
    ----------
    counts : UnitCounts

    Returns
    -------
    ndarray, (L, T + 1) float64
        column k for k positions of T; each row adds up to 1.

    Raises
    ------
    ValueError
        nothing was counted yet.

    Examples
    --------
    >>> import minirelu as mr
    >>> config = mr.ModelConfig(n_layers=1, n_heads=1, d_model=2, d_mlp=4, n_ctx=2, d_vocab=5)
    >>> counts = mr.UnitCounts(config)
    >>> counts.update({"blocks.0.mlp.hook_post": np.array([[[1.0, 1, 0, 0], [1, 0, 0, 0]]])})
    >>> in_sequence_distribution(counts)
    array([[0.5 , 0.25, 0.25]])
    """
    require_counts(counts)
    return counts.at_positions / counts.at_positions.sum(axis=1, keepdims=True)
