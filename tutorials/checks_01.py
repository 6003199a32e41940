"""Checks of the exercises of tutorial 1: each answers with a sentence, and never raises."""

from __future__ import annotations

from typing import Any

import numpy as np
from common import call, check


def check_pattern(function: Any) -> bool:
    """Check ``my_pattern(q, k)``: (T, D) and (T, D) to (T, T)."""
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(6, 3)), rng.normal(size=(6, 3))
    returned, given = call("my_pattern", function, q, k)
    if not returned:
        return False
    scores = q @ k.T / np.sqrt(3)  # (T, T)
    later = np.triu(np.ones((6, 6), dtype=bool), 1)
    with np.errstate(invalid="ignore"):
        masked = np.where(later, -np.inf, scores)
        zeros = np.where(later, 0.0, scores)
        mistakes = {
            "the division by sqrt(D) is missing": _shares(masked * np.sqrt(3)),
            "you divide by D instead of sqrt(D)": _shares(masked / np.sqrt(3)),
            "later positions are not masked": _shares(scores),
            "you set the scores of later positions to 0, not to -inf": _shares(zeros),
            "you set later positions to 0 after the softmax: rows no longer add up to 1": np.where(
                later, 0.0, _shares(scores)
            ),
            "neither the mask nor the division by sqrt(D) is there": _shares(scores * np.sqrt(3)),
            "the mask hides the earlier positions instead of the later ones": _shares(
                np.where(later.T, -np.inf, scores)
            ),
            "the mask is the wrong way round: it leaves only later positions": _shares(
                np.where(later, scores, -np.inf)
            ),
            "a position is not allowed to look at itself": _without_self(scores),
            "the shares add up to 1 over the queries (axis 0), not over the keys": _shares(
                masked.T
            ).T,
            "queries and keys have changed places": _shares(np.where(later, -np.inf, scores.T)),
            "these are the scores: the softmax is missing": masked,
        }
    return check("my_pattern", given, _shares(masked), mistakes)


def check_share_on(given: Any, post: np.ndarray) -> bool:
    """Check the share of units that are on at each token; ``post`` is (T, F)."""
    on = post > 0
    return check(
        "share_on",
        given,
        on.mean(axis=1),
        {
            "you counted the units; divide by their number": on.sum(axis=1),
            "this is for each unit the share of tokens; the other axis is wanted": on.mean(axis=0),
            "you divided by the number of tokens, not of units": on.sum(axis=1) / len(on),
            "you counted the units that are off": 1 - on.mean(axis=1),
            "0 counts as on; it is off": (post >= 0).mean(axis=1),
            "this is one number for all tokens; one for each is wanted": on.mean(),
            "this is the mean activation; only whether a unit is on counts": post.mean(axis=1),
        },
    )


def check_losses(function: Any) -> bool:
    """Check ``my_losses(logits, targets)``: (T, V) and (T,) to (T,)."""
    rng = np.random.default_rng(1)
    logits, targets = 3 * rng.normal(size=(6, 9)), rng.integers(0, 9, 6)
    returned, given = call("my_losses", function, logits, targets)
    if not returned:
        return False
    p = _shares(logits)  # (T, V)
    losses = -np.log(p[np.arange(6), targets])  # (T,)
    mistakes = {
        "the sign is missing: a loss is -log(p)": -losses,
        "this is the mean; one number for each token is wanted": losses.mean(),
        "these are the probabilities of the targets; take -log": np.exp(-losses),
        "these are 1 - p; take -log(p)": 1 - np.exp(-losses),
        "you used log2: that is bits, not nats": losses / np.log(2),
        "these are -log of all V probabilities; pick the target's": -np.log(p),
        "the softmax runs over the positions (axis 0), not over the vocabulary": -np.log(
            _shares(logits.T).T[np.arange(6), targets]
        ),
        "these are the logits of the targets; the softmax is missing": -logits[
            np.arange(6), targets
        ],
    }
    if not check("my_losses", given, losses, mistakes):
        return False
    with np.errstate(all="ignore"):
        returned, large = call("my_losses", function, 1000.0 * logits, targets)
    if not returned:
        return False
    shifted = 1000 * (logits - logits.max(axis=-1, keepdims=True))
    expected = np.log(np.exp(shifted).sum(axis=-1)) - shifted[np.arange(6), targets]
    with np.errstate(all="ignore"):
        log_of_0 = -np.log(_shares(1000 * logits)[np.arange(6), targets])
        e = np.exp(1000 * logits)
        overflow = e / e.sum(axis=-1, keepdims=True)  # inf / inf is NaN
        overflow = -np.log(overflow[np.arange(6), targets])
        log_of_inf = np.log(e.sum(axis=-1)) - 1000 * logits[np.arange(6), targets]
    return check(
        "my_losses with large logits",
        large,
        expected,
        {
            "a share became 0, and you took its log: use log(exp(a) / sum) = a - log(sum)": (
                log_of_0
            ),
            "exp overflowed: subtract the largest logit of each position first": overflow,
            "the sum of exp overflowed: subtract the largest logit of each position": log_of_inf,
        },
    )


def _shares(scores: np.ndarray) -> np.ndarray:
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _without_self(scores: np.ndarray) -> np.ndarray:
    """Where only earlier positions are seen; the first one sees nothing, so its row is NaN."""
    from_self_on = np.triu(np.ones(scores.shape, dtype=bool))
    return _shares(np.where(from_self_on, -np.inf, scores))
