"""What each hidden unit responds to: tokens, n-grams, positions, and how much each tells."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.ndimage import maximum_filter1d

from minirelu.specificity.firings import Firings
from minirelu.specificity.information import Cells, cells, effective_number, information
from minirelu.specificity.variables import VARIABLES, Text, Variable

FLOOR = 5  # firings below which nothing is said
MOST_TRIGGERS = 5
PERCENT = 95  # of firings explained, and of occurrences fired on
POSITIONAL = 0.05  # nats
BATCH_TOKENS = 8192
_NEIGHBOURS = 50  # units of the nearest rates, on either side
# In the order in which they are shown; a unit may be of several, or of none.
KINDS = ("silent", "steady", "token_detector", "bigram_unit", "trigram_unit", "positional")


class Responses(NamedTuple):
    """What U units of a layer respond to on a text of N tokens.

    Parameters
    ----------
    on, sequences_on, batches_on : (U,)
        tokens, sequences and batches (of up to 8192 tokens) in which the unit is on.
    information, null : dict of (U,)
        for each of :data:`~minirelu.specificity.variables.VARIABLES`, the mutual information with
        firing in nats, and the same with the firings at permuted places of the text.
    effective_tokens : (U,)
        exp of the entropy of the token read, over the unit's firings; 0 where it has none.
    coverage : (U, 3)
        how many 1-, 2- and 3-grams it takes to cover 95 % of the firings; 0 where there are none.
    order : (U,)
        1 for a token detector, 2 or 3 for a unit of 2- or 3-grams, otherwise 0.
    triggers : (U, 5, 3)
        its n-grams, those with most firings first: token ids, of which the last is the token
        read; -1 where there is none.
    characteristic, characteristic_on, lift : (U, k)
        tokens (ids) by lift, with 5 firings or more; their firings; and how much more often the
        unit fires on them than in general. Where there are fewer, -1 and 0.
    frequent, frequent_on : (U, k)
        tokens by firings, and these. Where there are fewer, -1 and 0.
    """

    on: np.ndarray
    sequences_on: np.ndarray
    batches_on: np.ndarray
    information: dict[str, np.ndarray]
    null: dict[str, np.ndarray]
    effective_tokens: np.ndarray
    coverage: np.ndarray
    order: np.ndarray
    triggers: np.ndarray
    characteristic: np.ndarray
    characteristic_on: np.ndarray
    lift: np.ndarray
    frequent: np.ndarray
    frequent_on: np.ndarray


def responses(firings: Firings, text: Text, k: int = 5, seed: int = 0) -> Responses:
    """Say what the units of a layer respond to.

    Parameters
    ----------
    firings : Firings
    text : Text
        what was read, see :func:`minirelu.specificity.variables.read_text`.
    k : int
        characteristic, and frequent, tokens of each unit.
    seed : int
        of the null's permutation, which all units share.

    Returns
    -------
    Responses

    Examples
    --------
    >>> from minirelu.specificity.firings import firings_of
    >>> from minirelu.specificity.variables import read_text
    >>> text = read_text(np.tile([7, 5, 6, 5, 5], (10, 1)))  # read: 7 5 6 5
    >>> on = text.variables["token"].labels[text.variables["token"].codes, 0] == 5
    >>> found = responses(firings_of(on[None]), text, k=2)
    >>> found.order, found.triggers[0, 0], found.characteristic, found.lift
    (array([1]), array([-1, -1,  5]), array([[ 5, -1]]), array([[2., 0.]]))
    """
    order = np.random.default_rng(seed).permutation(text.n_tokens)
    nulls = {name: text.variables[name].permuted(order) for name in VARIABLES}
    parts = [_of_block(on, text, nulls, k) for _, on in firings.blocks()]

    def joined(values: list) -> Any:
        if isinstance(values[0], dict):
            return {name: joined([v[name] for v in values]) for name in values[0]}
        return np.concatenate(values)

    if not parts:
        parts = [_of_block(np.zeros((0, text.n_tokens), bool), text, nulls, k)]
    return Responses(*(joined(list(values)) for values in zip(*parts, strict=True)))


def _of_block(on: np.ndarray, text: Text, nulls: dict[str, Variable], k: int) -> Responses:
    """Responses of some units, from their pattern (U, N)."""
    U = len(on)
    unit, place = np.nonzero(on)
    n_on = np.bincount(unit, minlength=U)
    in_sequence = np.any(on.reshape(U, text.n_sequences, text.sequence_length), axis=2)
    found = {name: cells(unit, place, U, text.variables[name]) for name in VARIABLES}
    by_token = found["token"]
    grams = [by_token, *(cells(unit, place, U, gram) for gram in text.grams[1:])]
    ids = text.grams[0].labels[:, 0]
    special, lifts = characteristic(by_token, text.grams[0], n_on, k)
    most = _best(by_token, np.lexsort((-by_token.firings, by_token.unit)), U, k)
    order, triggers = detected(grams, text.grams, n_on)
    return Responses(
        on=n_on,
        sequences_on=in_sequence.sum(axis=1),
        batches_on=_batches(in_sequence, text),
        information={n: information(found[n], text.variables[n], n_on) for n in VARIABLES},
        null={n: information(cells(unit, place, U, nulls[n]), nulls[n], n_on) for n in VARIABLES},
        effective_tokens=effective_number(by_token, n_on),
        coverage=np.stack([coverage(gram, n_on) for gram in grams], axis=1),
        order=order,
        triggers=triggers,
        characteristic=_at(special, ids[by_token.value], -1),
        characteristic_on=_at(special, by_token.firings, 0),
        lift=lifts,
        frequent=_at(most, ids[by_token.value], -1),
        frequent_on=_at(most, by_token.firings, 0),
    )


def n_batches(text: Text) -> tuple[int, int]:
    """Full batches of a text, and sequences in each; a shorter text is one batch."""
    each = min(max(1, BATCH_TOKENS // text.sequence_length), text.n_sequences)
    return text.n_sequences // each, each


def _batches(in_sequence: np.ndarray, text: Text) -> np.ndarray:
    n, each = n_batches(text)
    return in_sequence[:, : n * each].reshape(len(in_sequence), n, each).any(axis=2).sum(axis=1)


def coverage(found: Cells, on: np.ndarray) -> np.ndarray:
    """How many values, those with most firings first, cover 95 % of a unit's firings, (U,).

    >>> coverage(Cells(np.array([0, 0, 0]), np.arange(3), np.array([3, 90, 7])), np.array([100]))
    array([2])
    """
    most = int(on.max(initial=0)) + 1
    firings = most - np.sort(found.unit * (most + 1) + most - found.firings) % (most + 1)
    so_far = _cumulated(firings, found.unit, len(on))
    short = 100 * so_far < PERCENT * on[found.unit]
    return np.bincount(found.unit, short, len(on)).astype(np.int64) + (on > 0)


def detected(
    grams: list[Cells], variables: tuple[Variable, ...], on: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The n-grams that a unit stands for, and n: the smallest for which there are any.

    Voita et al. 2023 call a unit a token detector if 1 to 5 tokens explain 95 % of its firings or
    more, and it fires at 95 % or more of the occurrences of each. Ours: the same for 2- and
    3-grams that end where it fires (coverage alone would not do: whatever 5 of them cover, their
    last tokens cover too); and a floor of 5 firings for each of them, on average, since any 5
    firings lie on at most 5 n-grams.

    Returns
    -------
    order : (U,)
        n, or 0.
    triggers : (U, 5, 3)
        token ids, right-aligned; -1 where there is none.
    """
    order = np.zeros(len(on), np.int64)
    triggers = np.full((len(on), MOST_TRIGGERS, 3), -1)
    for n, (found, of) in enumerate(zip(grams, variables, strict=True), start=1):
        often = np.flatnonzero(100 * found.firings >= PERCENT * of.n[found.value])
        sure = Cells(*(field[often] for field in found))
        best = _best(sure, np.lexsort((-sure.firings, sure.unit)), len(on), MOST_TRIGGERS)
        explained = np.cumsum(_at(best, sure.firings, 0), axis=1)
        enough = 100 * explained >= PERCENT * on[:, None]
        size = enough.argmax(axis=1) + 1
        yes = enough.any(axis=1) & (on >= FLOOR * size) & (order == 0)
        order[yes] = n
        used = yes[:, None] & (np.arange(MOST_TRIGGERS) < size[:, None])
        triggers[used, 3 - n :] = of.labels[sure.value[best[used]]]
    return order, triggers


def characteristic(
    found: Cells, read: Variable, on: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens on which a unit fires more often than in general: by lift, (k_x/n_x) / (on/N).

    Ties go to the token with more firings, then to the smaller id.

    Returns
    -------
    which : (U, k)
        indices of ``found``; -1 where fewer tokens have 5 firings.
    lift : (U, k)
        0 there.
    """
    sure = np.flatnonzero(found.firings >= FLOOR)
    unit, firings = found.unit[sure], found.firings[sure]
    share = firings / read.n[found.value[sure]]
    best = _best(Cells(unit, sure, firings), np.lexsort((-firings, -share, unit)), len(on), k)
    lift = _at(best, share, 0.0) * len(read.codes) / np.maximum(on, 1)[:, None]
    return _at(best, sure, -1), lift


def _best(found: Cells, order: np.ndarray, U: int, k: int) -> np.ndarray:
    """The first k of each unit in an order by unit, as indices of ``found``, (U, k); or -1."""
    unit = found.unit[order]
    rank = np.arange(len(unit)) - np.searchsorted(unit, np.arange(U))[unit]
    best = np.full((U, k), -1)
    best[unit[rank < k], rank[rank < k]] = order[rank < k]
    return best


def _at(which: np.ndarray, values: np.ndarray, missing: float) -> np.ndarray:
    """``values[which]``, and ``missing`` where that is -1."""
    if not len(values):
        return np.full(which.shape, missing)
    return np.where(which >= 0, values[which], missing)


def _cumulated(firings: np.ndarray, unit: np.ndarray, U: int) -> np.ndarray:
    """Running sums within each unit; entries come by unit."""
    total = np.cumsum(firings)
    before = np.concatenate([[0], total])[np.searchsorted(unit, np.arange(U))]
    return total - before[unit]


def kinds(found: Responses, n_tokens: int) -> dict[str, np.ndarray]:
    """Which units are of each of :data:`KINDS`: dict of (U,), bool.

    Silent: never on; steady: on at more than 95 % of the tokens; positional: more than 0.05 nats
    of information with the position (Voita et al. 2023).
    """
    return {
        "silent": found.on == 0,
        "steady": 100 * found.on > PERCENT * n_tokens,
        "token_detector": found.order == 1,
        "bigram_unit": found.order == 2,
        "trigram_unit": found.order == 3,
        "positional": found.information["position"] > POSITIONAL,
    }


def varies(found: Responses, n_tokens: int) -> np.ndarray:
    """Units that are on at some of the tokens and off at others, (U,): others tell nothing."""
    return (found.on > 0) & (found.on < n_tokens)


def null_level(found: Responses, name: str, n_tokens: int) -> np.ndarray:
    """What chance alone reaches, (U,): information counts above it.

    Of each unit, the largest null of a variable among itself and the 50 units on either side that
    fire about as often, since the null grows with the rate of firing; so that 1 in 100 is above it
    by chance. NaN where a unit is never or always on.
    """
    varying = np.flatnonzero(varies(found, n_tokens))
    by_rate = varying[np.argsort(found.on[varying], kind="stable")]
    levels = np.full(len(found.on), np.nan)
    levels[by_rate] = maximum_filter1d(found.null[name][by_rate], 2 * _NEIGHBOURS + 1)
    return levels
