"""Checks of the exercises of tutorial 5: each answers with a sentence, whatever it is given."""

from __future__ import annotations

from typing import Any

import numpy as np
from common import call, check, same


def _made_up(seed: int) -> np.ndarray:
    """A layer's (B, T, F) bools, of which some units are rare and one is silent."""
    rng = np.random.default_rng(seed)
    on = rng.random((7, 6, 20)) < rng.random(20) * 0.3
    on[:, :, 0] = False
    return on


def _is(answer: Any, expected: float) -> bool:
    """Whether an answer, which may be anything, is this number."""
    try:
        number = np.asarray(answer)
        return number.dtype.kind in "buif" and same(number, np.asarray(expected))
    except Exception:  # ragged lists, strings, objects with an __array__ of their own
        return False


def check_per_batch(given: Any) -> bool:
    """Exercise 1: a function, tried with batches of 2 sequences (and one left over).

    If that is right, also where batches fill the sequences exactly: with three, and with one.
    """
    o = _made_up(1)
    T = o.shape[1]
    size = 2 * T + 3  # tokens: 2 whole sequences
    returned, answer = call("per_batch_of", given, o, size)
    if not returned:
        return False

    def shares(n: int, stop: int) -> list[float]:
        return [o[b : b + n].any(axis=(0, 1)).mean() for b in range(0, stop, n)]

    if _is(answer, np.mean(shares(2, 6))):
        for sequences, n in ((6, 2), (7, 7)):
            returned, exact = call("per_batch_of", given, o[:sequences], n * T)
            if not returned:
                return False
            parts = shares(n, sequences)
            if not _is(exact, np.mean(parts)):
                dropped = np.mean(parts[:-1]) if len(parts) > 1 else np.nan
                hint = "the last batch is left out where the batches fill all sequences exactly"
                return check("per_batch_of", exact, np.mean(parts), {hint: dropped})

    flat = o.reshape(-1, o.shape[2])
    return check(
        "per_batch_of",
        answer,
        np.mean(shares(2, 6)),
        {
            "you took all sequences as one batch": o.any(axis=(0, 1)).mean(),
            "each sequence is a batch of its own: that is use per sequence": np.mean(shares(1, 7)),
            "this is use per token": o.mean(),
            "the unfilled rest is counted, too": np.mean(shares(2, 7)),
            "batches were cut within a sequence": np.mean(
                [part.any(axis=0).mean() for part in np.split(flat, [size, 2 * size])[:2]]
            ),
            "this is the list of batches; take their mean": shares(2, 6),
            "this is the share that is silent": 1 - np.mean(shares(2, 6)),
        },
    )


def check_unused(given: Any) -> bool:
    """Exercise 2: a function of one layer's (B, T, F)."""
    o = _made_up(2)
    returned, answer = call("unused_after", given, o)
    if not returned:
        return False
    used = np.logical_or.accumulate(o, axis=1)
    unused = 1 - used.mean(axis=(0, 2))
    return check(
        "unused_after",
        answer,
        unused,
        {
            "this is what was used, not what was not": 1 - unused,
            "this is what each token leaves unused by itself: add up over the tokens before": 1
            - o.mean(axis=(0, 2)),
            "a unit is counted again each time it fires: > 0 is missing": 1
            - np.cumsum(o, axis=1).mean(axis=(0, 2)),
            "it starts at t = 0, before any token; the first entry is for t = 1": np.concatenate(
                [[1.0], unused[:-1]]
            ),
            "you added up over sequences, too; each sequence starts anew": 1
            - np.logical_or.accumulate(o.any(axis=0), axis=0).mean(axis=1),
            "the mean over sequences is missing": 1 - used.mean(axis=2),
            "these are numbers of units, not shares": unused * o.shape[2],
        },
    )


def check_fires_on(given: Any) -> bool:
    """Exercise 3: a function of one unit's (B, T), the tokens and the size of the vocabulary."""
    rng = np.random.default_rng(3)
    V = 9
    tokens = rng.integers(0, V - 2, (7, 6))  # the last two do not occur
    o_j = (rng.random(tokens.shape) < 0.3) | (tokens == 4)
    returned, answer = call("fires_on", given, o_j, tokens, V)
    if not returned:
        return False
    occurrences = np.bincount(tokens.ravel(), minlength=V)
    with_it_on = np.bincount(tokens[o_j], minlength=V)
    share = with_it_on / np.maximum(occurrences, 1)
    with np.errstate(invalid="ignore"):
        not_a_number = with_it_on / occurrences
    if isinstance(answer, np.ndarray) and answer.shape == share.shape and answer.dtype.kind == "f":
        missing = ~np.isfinite(answer)
        if missing.any() and np.allclose(answer[~missing], share[~missing]):
            print("fires_on: not yet. A token that does not occur should get 0, not 0 / 0.")
            return False
    return check(
        "fires_on",
        answer,
        share,
        {
            "these are numbers of tokens; divide by how often each occurs": with_it_on,
            "you divided by all tokens, not by the occurrences of each": with_it_on / tokens.size,
            "you divided by how often the unit is on: of what it fires on, what share is this "
            "token? That is the other way round": with_it_on / with_it_on.sum(),
            "tokens that do not occur are missing at the end; use minlength": share[:-2],
            "tokens that do not occur are NaN; they should be 0": not_a_number,
        },
    )
