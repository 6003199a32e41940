"""What a layer's units respond to and write, in one number per question; and over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from minirelu.intervals import Estimate, over_seeds
from minirelu.specificity.responses import (
    FLOOR,
    KINDS,
    MOST_TRIGGERS,
    Responses,
    kinds,
    n_batches,
    null_level,
)
from minirelu.specificity.variables import VARIABLES, Text
from minirelu.specificity.writes import writes_back

# What a number is of, which decides how it is shown.
SHARE, NATS, RATIO, TOKENS, UNITS = "share", "nats", "ratio", "tokens", "units"
# The tables they stand in.
KIND, TELLS, USES = "kinds", "information", "use"


class Number(NamedTuple):
    """One number per layer: its key in JSON and CSV, its heading, and where it is shown."""

    name: str
    heading: str
    unit: str
    table: str = ""

    def text(self, value: float) -> str:
        """Return a value as tables show it.

        >>> NUMBERS["silent"].text(0.5), NUMBERS["information_token"].text(0.25)
        ('50.00 %', '0.250')
        """
        if math.isnan(value):
            return "-"
        if self.unit == SHARE:
            return f"{100 * value:.2f} %"
        if self.unit in (TOKENS, UNITS):
            return f"{value:,.1f}".removesuffix(".0")
        return f"{value:.3f}"


NUMBERS: dict[str, Number] = {
    number.name: number
    for number in (
        Number("silent", "silent", SHARE, KIND),
        Number("steady", "steady", SHARE, KIND),
        Number("token_detector", "detect token", SHARE, KIND),
        Number("bigram_unit", "2-gram", SHARE, KIND),
        Number("trigram_unit", "3-gram", SHARE, KIND),
        Number("few_tokens", "few tokens", SHARE, KIND),
        Number("positional", "positional", SHARE, KIND),
        *(
            number
            for name in VARIABLES
            for number in (
                Number(f"information_{name}", name, NATS, TELLS),
                Number(f"above_null_{name}", "above null", SHARE, TELLS),
                Number(f"null_{name}", f"null, {name}", NATS),
            )
        ),
        Number("told_by_token", "told by token", SHARE, TELLS),
        Number("effective_tokens", "eff. tokens", TOKENS, USES),
        Number("token_in_sequence", "token/seq.", RATIO, USES),
        Number("sequence_in_batch", "seq./batch", RATIO, USES),
        Number("used_per_batch", "used, batch", SHARE, USES),
        Number("used_units", "units used", UNITS, USES),
        Number("detectors", "detectors", UNITS, USES),
        Number("writes_back", "write back", UNITS, USES),
        Number("removes", "remove", UNITS, USES),
    )
}


def layer_numbers(
    found: Responses, text: Text, params: Mapping[str, np.ndarray], layer: int
) -> dict[str, float]:
    """Sum a layer up, by the names in :data:`NUMBERS`; NaN where there is nothing to tell.

    Medians, and shares above the null, are over the units that are on at all (of what the token
    tells, over those also off somewhere); other shares are of all units. Of token detectors, and
    of those that write back or remove, it is the number: they are too few for shares.

    Parameters
    ----------
    found : Responses
        of all units of the layer.
    text : Text
    params : mapping of ndarray
    layer : int
    """
    N, used = text.n_tokens, found.on > 0
    which = kinds(found, N)
    numbers = {kind: _mean(which[kind]) for kind in KINDS}
    few = (found.coverage[:, 0] <= MOST_TRIGGERS) & (found.on >= FLOOR * found.coverage[:, 0])
    numbers["few_tokens"] = _mean(few & used)
    for name in VARIABLES:
        tells, null = found.information[name][used], found.null[name][used]
        numbers[f"information_{name}"] = _median(tells)
        numbers[f"null_{name}"] = _median(null)
        numbers[f"above_null_{name}"] = _mean(tells > null_level(found, name, N)[used])
    entropy = binary_entropy(found.on / N)
    some = entropy > 0
    numbers["told_by_token"] = _median(found.information["token"][some] / entropy[some])
    numbers["effective_tokens"] = _median(found.effective_tokens[used])
    per_token, per_sequence = _mean(found.on / N), _mean(found.sequences_on / text.n_sequences)
    per_batch = _mean(found.batches_on / n_batches(text)[0])
    numbers["token_in_sequence"] = per_token / per_sequence if per_sequence else math.nan
    numbers["sequence_in_batch"] = per_sequence / per_batch if per_batch else math.nan
    numbers["used_per_batch"] = per_batch
    numbers["used_units"] = float(used.sum())
    detectors = np.flatnonzero(which["token_detector"])
    back = writes_back(params, layer, detectors, found.triggers[detectors, 0, 2])
    numbers["detectors"] = float(len(detectors))
    numbers["writes_back"], numbers["removes"] = float((back == 1).sum()), float((back == -1).sum())
    return {name: numbers[name] for name in NUMBERS}


def binary_entropy(f: np.ndarray) -> np.ndarray:
    """Entropy of being on at a share f of the tokens, in nats: all there is to be told.

    >>> binary_entropy(np.array([0.0, 0.5, 1.0])).round(4)
    array([0.    , 0.6931, 0.    ])
    """
    inside = np.clip(f, 1e-300, 1), np.clip(1 - f, 1e-300, 1)
    return -f * np.log(inside[0]) - (1 - f) * np.log(inside[1])


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else math.nan


Layers = Sequence[Mapping[str, Any]]  # of one run: the numbers of each layer, None for NaN


def of_seeds(seeds: Sequence[Layers], name: str) -> list[Estimate]:
    """A number layer by layer: mean over seeds, and Student's 95 % interval.

    >>> [round(x, 2) for x in of_seeds([[{"silent": 0.1}], [{"silent": 0.3}]], "silent")[0]]
    [0.2, -1.07, 1.47]
    """
    return [_estimate([layers[l][name] for layers in seeds]) for l in range(len(seeds[0]))]


def last_minus_first(seeds: Sequence[Layers], name: str) -> Estimate | None:
    """How much more of it the last layer has than the first, seed by seed; None for one layer.

    >>> last_minus_first([[{"silent": 0.1}, {"silent": 0.4}]], "silent").value.__round__(3)
    0.3
    """
    if len(seeds[0]) == 1:
        return None
    ends = [(layers[0][name], layers[-1][name]) for layers in seeds]
    return _estimate([None if None in pair else pair[1] - pair[0] for pair in ends])


def _estimate(values: Sequence[float | None]) -> Estimate:
    known = [v for v in values if v is not None]
    return over_seeds(known) if known else Estimate(math.nan, math.nan, math.nan)
