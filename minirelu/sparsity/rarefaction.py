"""Units seen against tokens read, and how many have not been seen yet.

Both come from counting species: a unit is a species, a token (or a sequence) a catch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minirelu.errors import UserError
from minirelu.sparsity.counts import UnitCounts
from minirelu.sparsity.usage import require_counts


class Rarefaction(NamedTuple):
    """Share of a layer's units seen after this many tokens.

    ``tokens`` (n,) int64; ``seen``, ``shuffled``, ``independent`` (L, n) float64.
    """

    tokens: np.ndarray
    seen: np.ndarray
    shuffled: np.ndarray
    independent: np.ndarray


def rarefaction(counts: UnitCounts, points: int = 24) -> Rarefaction:
    """Units seen after reading 1, 2, ... sequences, against what other texts would show.

    * ``seen``: the mean over all ways to pick m of the S sequences,
      ``sum_j 1 - C(S - s_j, m) / C(S, m)`` with s_j the sequences in which unit j was on
      (Hurlbert 1971)
    * ``shuffled``: the same with single tokens in place of sequences, m * T of the S * T: what
      would be seen if a sequence were any T tokens of this text
    * ``independent``: ``sum_j 1 - (1 - p_j)**n``, each unit firing by itself at its own rate p_j

    As far as ``seen`` lies below ``shuffled``, tokens of one sequence use the same units.

    Parameters
    ----------
    counts : UnitCounts
    points : int
        how many numbers of sequences, evenly spread on a logarithmic scale from 1 to S.

    Returns
    -------
    Rarefaction

    Raises
    ------
    ValueError
        nothing was counted yet, or ``points`` is below 1.

    Examples
    --------
    Two sequences of two tokens; unit 0 is on in both, unit 1 in one of them, unit 2 in none:

    >>> import minirelu as mr
    >>> config = mr.ModelConfig(n_layers=1, n_heads=1, d_model=2, d_mlp=3, n_ctx=2, d_vocab=5)
    >>> counts = mr.UnitCounts(config)
    >>> post = np.array([[[1.0, 1, 0], [0, 1, 0]], [[1, 0, 0], [0, 0, 0]]])
    >>> counts.update({"blocks.0.mlp.hook_post": post})
    >>> r = rarefaction(counts)
    >>> r.tokens, (3 * r.seen).round(2), (3 * r.shuffled).round(2)
    (array([2, 4]), array([[1.5, 2. ]]), array([[1.67, 2.  ]]))
    """
    require_counts(counts)
    if points < 1:
        raise UserError(f"points: {points!r} is not allowed; it must be 1 or more")
    S, T, N = counts.n_sequences, counts.sequence_length, counts.n_tokens
    m = np.unique(np.geomspace(1, S, points).round().astype(np.int64))
    seen, shuffled, independent = (np.empty((counts.config.n_layers, len(m))) for _ in range(3))
    for l, (on, sequences) in enumerate(zip(counts.tokens_on, counts.sequences_on, strict=True)):
        seen[l] = _expected_share(sequences, S, m)
        shuffled[l] = _expected_share(on, N, m * T)
        rates, times = np.unique(on / N, return_counts=True)
        still_unseen = (1 - rates[:, None]) ** (m * T)
        independent[l] = 1 - times @ still_unseen / len(on)
    return Rarefaction(m * T, seen, shuffled, independent)


def _expected_share(k: np.ndarray, N: int, n: np.ndarray) -> np.ndarray:
    """Share of units, on in k (F,) of N catches, that n (points,) of the catches show, on average.

    All of the n must miss the k: C(N - k, n) / C(N, n), by the logarithms of the factorials.
    """
    from scipy.special import gammaln  # slow to load, and the table of measures needs this file

    k, times = np.unique(k, return_counts=True)
    rest = N - k[:, None] - n
    possible = rest >= 0
    log_missed = (
        gammaln(N - k + 1)[:, None]
        - gammaln(np.where(possible, rest, 0) + 1)
        + gammaln(N - n + 1)
        - gammaln(N + 1)
    )
    missed = np.where(possible, np.exp(log_missed), 0.0)
    missed[k == 0] = 1.0  # exactly
    return 1 - times @ missed / times.sum()


class Chao1(NamedTuple):
    """Numbers of a layer's units, (L,) float64 each: seen so far, and estimated in all."""

    seen: np.ndarray
    estimate: np.ndarray


def chao1(counts: UnitCounts) -> Chao1:
    """Chao's estimate of how many units would fire at all, from those that did so once or twice.

    ``S + f1**2 / (2 f2)`` with S units seen, f1 in exactly one sequence and f2 in two; where f2 is
    0, ``S + f1 (f1 - 1) / 2`` (Chao 1984 and 1987). Sequences are the catches, as tokens of one
    are far from independent. It is a lower bound on average, and never more than F here.

    Parameters
    ----------
    counts : UnitCounts

    Returns
    -------
    Chao1

    Raises
    ------
    ValueError
        nothing was counted yet.

    Examples
    --------
    >>> import minirelu as mr
    >>> config = mr.ModelConfig(n_layers=1, n_heads=1, d_model=2, d_mlp=9, n_ctx=1, d_vocab=5)
    >>> counts = mr.UnitCounts(config)
    >>> post = np.array([[[1.0, 1, 1, 0, 0, 0, 0, 0, 0]], [[1, 0, 0, 0, 0, 0, 0, 0, 0]]])
    >>> counts.update({"blocks.0.mlp.hook_post": post})
    >>> chao1(counts)  # 3 seen, 2 of them once and 1 twice: 3 + 4/2
    Chao1(seen=array([3.]), estimate=array([5.]))
    """
    require_counts(counts)
    seen, estimate = [], []
    for on in counts.sequences_on:
        S, f1, f2 = (float(np.count_nonzero(x)) for x in (on, on == 1, on == 2))
        unseen = f1**2 / (2 * f2) if f2 else f1 * (f1 - 1) / 2
        seen.append(S)
        estimate.append(min(S + unseen, float(len(on))))
    return Chao1(np.array(seen), np.array(estimate))
