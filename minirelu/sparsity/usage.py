"""The measures of Wild & Anderson 2024 (figures 1, 2 and 5), as pure functions of the counts."""

from __future__ import annotations

import math
from numbers import Real
from typing import NamedTuple

import numpy as np

from minirelu.errors import UserError
from minirelu.sparsity.counts import TENTHS, UnitCounts


class Usage(NamedTuple):
    """Fractions of a layer's hidden units, each (L,), float64."""

    per_token: np.ndarray
    per_sequence: np.ndarray
    per_batch: np.ndarray


def usage(counts: UnitCounts) -> Usage:
    """What share of its units each layer uses, at three scales.

    * ``per_token``: mean over tokens of (units on at that token) / F
    * ``per_sequence``: mean over sequences of (units on at one position or more) / F
    * ``per_batch``: mean over batches of (units on at one token or more) / F; the tokens of such
      a batch are ``counts.batch_size_used``

    A unit on at a token is on in its sequence and batch, so the three never decrease.

    Parameters
    ----------
    counts : UnitCounts
        of at least one sequence.

    Returns
    -------
    Usage

    Raises
    ------
    ValueError
        nothing was counted yet.

    Examples
    --------
    >>> import minirelu as mr
    >>> config = mr.ModelConfig(n_layers=1, n_heads=1, d_model=2, d_mlp=4, n_ctx=2, d_vocab=5)
    >>> counts = mr.UnitCounts(config)
    >>> post = np.array([[[1.0, 0, 0, 0], [0, 1, 0, 0]], [[1, 0, 0, 0], [0, 0, 1, 0]]])
    >>> counts.update({"blocks.0.mlp.hook_post": post})
    >>> mr.usage(counts)
    Usage(per_token=array([0.25]), per_sequence=array([0.5]), per_batch=array([0.75]))
    """
    require_counts(counts)
    return Usage(
        per_token=np.array([on.mean() / counts.n_tokens for on in counts.tokens_on]),
        per_sequence=np.array([on.mean() / counts.n_sequences for on in counts.sequences_on]),
        per_batch=np.array([share.mean() for share in counts.batch_share_on()]),
    )


def require_counts(counts: UnitCounts) -> None:
    """Raise where nothing was counted yet, of which no share can be taken."""
    if not counts.n_sequences:
        raise UserError("nothing was counted yet; update the counts first")


class LevelRatios(NamedTuple):
    """How much of what a layer uses at one scale it uses at the next smaller one; (L,) each."""

    token_in_sequence: np.ndarray
    sequence_in_batch: np.ndarray


def level_ratios(counts: UnitCounts) -> LevelRatios:
    """How specific use is: ``per_token / per_sequence`` and ``per_sequence / per_batch``.

    Near 1, every token (sequence) uses about the same units; near 0, each uses its own.

    Parameters
    ----------
    counts : UnitCounts

    Returns
    -------
    LevelRatios
        NaN where the layer used no unit.

    Raises
    ------
    ValueError
        nothing was counted yet.

    Examples
    --------
    >>> import minirelu as mr
    >>> config = mr.ModelConfig(n_layers=1, n_heads=1, d_model=2, d_mlp=4, n_ctx=2, d_vocab=5)
    >>> counts = mr.UnitCounts(config)
    >>> post = np.array([[[1.0, 0, 0, 0], [0, 1, 0, 0]], [[1, 0, 0, 0], [0, 0, 1, 1]]])
    >>> counts.update({"blocks.0.mlp.hook_post": post})
    >>> level_ratios(counts)
    LevelRatios(token_in_sequence=array([0.5]), sequence_in_batch=array([0.625]))
    """
    used = usage(counts)
    with np.errstate(invalid="ignore"):  # nothing used: 0 / 0
        return LevelRatios(used.per_token / used.per_sequence, used.per_sequence / used.per_batch)


class FirstAndLast(NamedTuple):
    """One measure at a model's two ends: first layer, mean of those between, last layer."""

    first: float
    middle: float
    last: float

    @property
    def last_over_first(self) -> float:
        """Above 1, the last layer has more of it."""
        return self.last / self.first if self.first else math.nan


def first_and_last(per_layer: np.ndarray) -> FirstAndLast:
    """Compare the ends of a model in one measure, (L,).

    Parameters
    ----------
    per_layer : ndarray, (L,)

    Returns
    -------
    FirstAndLast
        ``middle`` is NaN without a layer between.

    Examples
    --------
    >>> ends = first_and_last(np.array([0.2, 0.5, 0.7, 0.9]))
    >>> ends.middle, ends.last_over_first
    (0.6, 4.5)
    """
    between = per_layer[1:-1]
    middle = float(between.mean()) if len(between) else math.nan
    return FirstAndLast(float(per_layer[0]), middle, float(per_layer[-1]))


def in_sequence_percentile(counts: UnitCounts, p: float = 50.0, over: str = "used") -> np.ndarray:
    """Percentile of in-sequence frequency: how steadily units fire within one sequence.

    In each sequence unit j is on at a share f_j of the positions. The percentile (interpolated
    linearly, as ``np.percentile`` does) is taken over the units of the layer, then averaged over
    the sequences.

    Parameters
    ----------
    counts : UnitCounts
    p : float
        0 to 100 in tenths; the paper's figure 2b has 50.
    over : {"used", "all"}
        units with f_j > 0 only, or all F. A sequence that uses no unit at all has no percentile
        over used ones and is left out; without any other the result is NaN.

    Returns
    -------
    ndarray, (L,)
        as shares of a sequence, 0 to 1.

    Raises
    ------
    ValueError
        ``p`` or ``over`` is not one of these; or nothing was counted yet.

    Examples
    --------
    >>> import minirelu as mr
    >>> config = mr.ModelConfig(n_layers=1, n_heads=1, d_model=2, d_mlp=3, n_ctx=2, d_vocab=5)
    >>> counts = mr.UnitCounts(config)
    >>> counts.update({"blocks.0.mlp.hook_post": np.array([[[1.0, 1, 0], [1, 0, 0]]])})
    >>> in_sequence_percentile(counts), in_sequence_percentile(counts, over="all")
    (array([0.75]), array([0.5]))
    """
    tenth = round(p * TENTHS / 100) if isinstance(p, Real) and 0 <= p <= 100 else -1
    if abs(tenth - p * TENTHS / 100) > 1e-9 or tenth < 0:
        raise UserError(f"p: {p!r} is not allowed; it must be from 0 to 100, in tenths")
    if over not in ("used", "all"):
        raise UserError(f"over: {over!r} is not allowed; it must be used or all")
    require_counts(counts)
    total = counts.percentiles[0 if over == "used" else 1, :, tenth]
    n = counts.sequences_used if over == "used" else np.full_like(total, counts.n_sequences)
    with np.errstate(invalid="ignore"):  # none used: 0 / 0
        return total / (n * TENTHS * counts.sequence_length)
