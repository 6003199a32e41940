"""What the page says of units one by one: their kinds, what they respond to, what they write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from minirelu.specificity.firings import firings_of
from minirelu.specificity.information import Cells, effective_number
from minirelu.specificity.responses import KINDS, Responses, kinds, responses
from minirelu.specificity.variables import VARIABLES, Text
from minirelu.specificity.writes import Writes, writes, writes_back

_MOST = 5  # characteristic tokens of a unit
_MOST_WRITTEN = 4  # tokens raised, and lowered
KIND_NAMES = {"bigram_unit": "2-gram unit", "trigram_unit": "3-gram unit"}  # others as they are
VARIABLE_NAMES = {
    "token": "the token read",
    "previous": "the token before it",
    "next": "the token after it",
    "position": "the position",
}


class Specific(NamedTuple):
    """Of U units of a layer: what they respond to, what they write, and whether back.

    ``back`` (U,) is 1 for a token detector that writes its trigger back, -1 for one that removes
    it, and 0 for all others.
    """

    responses: Responses
    writes: Writes
    back: np.ndarray

    @property
    def tokens_written(self) -> np.ndarray:
        """Ids of all tokens that are named as raised or lowered."""
        return np.unique([self.writes.raised, self.writes.lowered])


def specific(
    params: Mapping[str, np.ndarray], layer: int, units: np.ndarray, on: np.ndarray, text: Text
) -> Specific:
    """Say what units respond to and write, given where they are on: (N, U) bool, of a text."""
    found = responses(firings_of(on.T, layer), text, k=_MOST)
    detectors = np.flatnonzero(found.order == 1)
    back = np.zeros(len(units), np.int64)
    triggers = found.triggers[detectors, 0, -1]
    back[detectors] = writes_back(params, layer, units[detectors], triggers)
    return Specific(found, writes(params, layer, _MOST_WRITTEN, units), back)


def as_plain(of: Specific, tokens_on: np.ndarray, text: Text, ids: np.ndarray) -> dict[str, Any]:
    """Plain values for the page.

    Parameters
    ----------
    of : Specific
        of U units.
    tokens_on : int ndarray, (U,)
        as the page tells them: who is silent is taken from these.
    text : Text
    ids : int ndarray
        of the tokens that the page knows, in order; tokens are indices into it, and -1 stands for
        the beginning of a sequence.

    Returns
    -------
    dict
        lists of U: ``kinds`` (bit i: of kind i of :data:`KINDS`), ``special`` (characteristic
        tokens: index, firings, index, firings ...), ``effective`` (number of tokens),
        ``information`` and ``shuffled`` (with each variable, and by chance, in thousandths of a
        nat), ``triggers`` (n-grams that the unit detects), ``back``, ``raised`` and ``lowered``
        (tokens); empty where the unit is silent.
    """
    found, silent = of.responses, tokens_on == 0
    of_kind = kinds(found, text.n_tokens) | {"silent": silent}
    bits = sum(of_kind[name].astype(np.int64) << i for i, name in enumerate(KINDS))

    def unless_silent(rows: np.ndarray) -> list[list[int]]:
        return [[] if off else row for off, row in zip(silent, rows.tolist(), strict=True)]

    def thousandths(of_variables: Mapping[str, np.ndarray]) -> list[list[int]]:
        nats = np.stack([of_variables[name] for name in VARIABLES], axis=1)
        return unless_silent((1000 * nats).round().astype(int))

    def index(tokens: np.ndarray) -> np.ndarray:
        return np.where(tokens < 0, -1, np.searchsorted(ids, tokens))

    pairs = np.stack([index(found.characteristic), found.characteristic_on], axis=-1)
    n_special = 2 * (found.characteristic >= 0).sum(axis=1)
    n_triggers = (found.triggers[:, :, -1] >= 0).sum(axis=1)
    grams = index(found.triggers)
    return {
        "kinds": bits.tolist(),
        "special": [
            row[:n]
            for row, n in zip(pairs.reshape(len(pairs), -1).tolist(), n_special, strict=True)
        ],
        "effective": [float(f"{n:.3g}") for n in found.effective_tokens],
        "information": thousandths(found.information),
        "shuffled": thousandths(found.null),
        "triggers": [
            grams[j, :n, 3 - max(1, order) :].tolist()
            for j, (n, order) in enumerate(zip(n_triggers, found.order, strict=True))
        ],
        "back": of.back.tolist(),
        "raised": unless_silent(index(of.writes.raised)),
        "lowered": unless_silent(index(of.writes.lowered)),
    }


def legend(text: Text) -> dict[str, Any]:
    """Return what all layers share: names of kinds and variables, the text's effective tokens."""
    n = text.variables["token"].n
    whole = Cells(np.zeros(len(n), np.int64), np.arange(len(n)), n)
    effective = effective_number(whole, np.array([text.n_tokens]))[0]
    return {
        "kinds": [KIND_NAMES.get(name, name.replace("_", " ")) for name in KINDS],
        "variables": {name: VARIABLE_NAMES[name] for name in VARIABLES},
        "effective": float(f"{effective:.3g}"),
    }
