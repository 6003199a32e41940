"""Can early features of a unit tell that it will die? Ranking, logistic regression, other seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from minirelu.errors import UserError


def auc(scores: np.ndarray, died: np.ndarray) -> float:
    """Return the probability that a unit that died has a higher score than one that did not.

    The area under the ROC curve: 0.5 for scores that know nothing. Ties count half.

    Parameters
    ----------
    scores : ndarray, (n,)
    died : bool ndarray, (n,)

    Returns
    -------
    float

    Raises
    ------
    UserError
        all died, or none.

    Examples
    --------
    >>> auc(np.array([1.0, 2, 2, 3]), np.array([0, 0, 1, 1], bool))
    0.875
    """
    from scipy.stats import rankdata  # slow to load

    died = _both_kinds(died)
    n = int(died.sum())
    return float((rankdata(scores)[died].sum() - n * (n + 1) / 2) / (n * (len(died) - n)))


def _both_kinds(died: np.ndarray) -> np.ndarray:
    died = np.asarray(died, bool)
    if died.all() or not died.any():
        what = "all" if len(died) and died.all() else "none"
        raise UserError(f"{what} of {len(died)} units died: there is nothing to predict")
    return died


class Roc(NamedTuple):
    """Of detectors "dead if the score is ``threshold`` or more", from the strictest on; (m,) each.

    ``true_positive`` : share of the units that died that it finds; ``false_positive`` : share of
    the others that it takes for dead.
    """

    false_positive: np.ndarray
    true_positive: np.ndarray
    threshold: np.ndarray


def roc(scores: np.ndarray, died: np.ndarray) -> Roc:
    """Return the ROC curve, one point for each different score, after (0, 0).

    Parameters
    ----------
    scores : ndarray, (n,)
    died : bool ndarray, (n,)

    Returns
    -------
    Roc

    Raises
    ------
    UserError
        all died, or none.

    Examples
    --------
    >>> r = roc(np.array([1.0, 2, 2, 3]), np.array([0, 0, 1, 1], bool))
    >>> r.false_positive, r.true_positive, r.threshold
    (array([0. , 0. , 0.5, 1. ]), array([0. , 0.5, 1. , 1. ]), array([inf,  3.,  2.,  1.]))
    """
    died = _both_kinds(died)
    order = np.argsort(-scores, kind="stable")
    s, d = scores[order], died[order]
    last = np.flatnonzero(np.r_[s[1:] != s[:-1], True])  # of those that share a score
    positive, negative = np.cumsum(d)[last], np.cumsum(~d)[last]
    return Roc(
        np.r_[0, negative / negative[-1]], np.r_[0, positive / positive[-1]], np.r_[np.inf, s[last]]
    )


class Logistic(NamedTuple):
    """A fitted logistic regression: ``weights``, (k,), of features in standard deviations."""

    weights: np.ndarray
    bias: float
    mean: np.ndarray
    scale: np.ndarray

    def log_odds(self, features: np.ndarray) -> np.ndarray:
        """Return the log-odds of death for features (n, k), (n,) float64."""
        return (features - self.mean) / self.scale @ self.weights + self.bias


def logistic(features: np.ndarray, died: np.ndarray, l2: float = 1.0) -> Logistic:
    """Fit a logistic regression with a penalty of ``l2 / 2`` times the squared weights.

    Parameters
    ----------
    features : ndarray, (n, k)
        standardised here; one that never changes gets no weight.
    died : bool ndarray, (n,)
    l2 : float
        0 or more; the intercept is free of it.

    Returns
    -------
    Logistic

    Raises
    ------
    UserError
        all died, or none; or a feature is not finite.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(5000, 2))
    >>> died = rng.random(5000) < 1 / (1 + np.exp(1 - 2 * x[:, 0]))
    >>> fit = logistic(x, died)
    >>> fit.weights.round(1) + 0.0, round(fit.bias, 1)
    (array([2., 0.]), -1.0)
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    died = _both_kinds(died)
    X = np.asarray(features, np.float64)
    if not np.isfinite(X).all():
        column = int(np.flatnonzero(~np.isfinite(X).all(axis=0))[0])
        raise UserError(f"feature {column} has values that are not finite; leave out such units")
    mean, scale = X.mean(axis=0), X.std(axis=0)
    scale = np.where(scale > 1e-12 * np.abs(mean), scale, 1)  # but for rounding, it never changes
    X, y = (X - mean) / scale, died.astype(np.float64)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        w, b = parameters[:-1], parameters[-1]
        z = X @ w + b
        error = expit(z) - y  # with respect to z
        value = float((np.logaddexp(0, z) - y * z).sum() + l2 / 2 * (w @ w))
        return value / len(y), np.r_[X.T @ error + l2 * w, error.sum()] / len(y)

    start = np.r_[np.zeros(X.shape[1]), np.log(y.mean() / (1 - y.mean()))]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"gtol": 1e-8}).x
    return Logistic(found[:-1], float(found[-1]), mean, scale)


def leave_one_seed_out(
    features: Sequence[np.ndarray], died: Sequence[np.ndarray], l2: float = 1.0
) -> np.ndarray:
    """Predict each seed's deaths with a regression fitted to the other seeds.

    Parameters
    ----------
    features : two or more arrays, (n_i, k)
        of the units of each seed; for another set of features, take other columns.
    died : as many bool arrays, (n_i,)
    l2 : float
        as for :func:`logistic`.

    Returns
    -------
    float64 ndarray, (seeds,)
        the AUC in each held-out seed, for ``intervals.over_seeds``; NaN where all its units died,
        or none.

    Raises
    ------
    UserError
        fewer than two seeds; or the others have no deaths to learn from.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = [rng.normal(size=(2000, 1)) for seed in range(3)]
    >>> leave_one_seed_out(x, [rng.random(2000) < 1 / (1 + np.exp(-f[:, 0])) for f in x]).round(1)
    array([0.7, 0.7, 0.7])
    """
    if len(features) < 2 or len(features) != len(died):
        raise UserError(
            f"{len(features)} seeds with features and {len(died)} with deaths: two or more of both "
            "are needed to predict one from the others"
        )
    found = np.full(len(died), np.nan)
    for i, (x, y) in enumerate(zip(features, died, strict=True)):
        others = [j for j in range(len(died)) if j != i]
        fit = logistic(
            np.concatenate([features[j] for j in others]),
            np.concatenate([died[j] for j in others]),
            l2,
        )
        if np.any(y) and not np.all(y):
            found[i] = auc(fit.log_odds(x), y)
    return found
