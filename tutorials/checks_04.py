"""Checks of the exercises of tutorial 4: each answers with a sentence, whatever it is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from common import call, check


def _tried(name: str, given: Any, cases: list[tuple[float, ...]]) -> list[Any] | None:
    """What a function returns for each case; None where a sentence was printed already."""
    results = []
    for case in cases:
        returned, result = call(name, given, *case)
        if not returned:
            return None
        if result is None or result is ...:
            check(name, None, 0.0)
            return None
        results.append(result)
    return results


def _check_formula(
    name: str,
    given: Any,
    cases: list[tuple[float, ...]],
    right: Callable[..., float],
    mistakes: dict[str, Callable[..., float]],
) -> bool:
    results = _tried(name, given, cases)
    if results is None:
        return False
    wrong = {hint: [mistake(*case) for case in cases] for hint, mistake in mistakes.items()}
    return check(name, results, [right(*case) for case in cases], wrong)


def check_arithmetic_left(given: Any) -> bool:
    """Exercise 1: a function of the share that is on."""
    return _check_formula(
        "arithmetic_left",
        given,
        [(1.0,), (0.5,), (0.05,), (0.0,)],
        lambda s: (1 + 5 * s) / 6,
        {
            "the first product is missing, which visits every pair": lambda s: 5 * s / 6,
            "all six products shrink here; the first one visits every pair": lambda s: s,
            "you left out the division by the six of the dense MLP": lambda s: 1 + 5 * s,
            "only one of the products shrinks here, and not five": lambda s: (5 + s) / 6,
            "this is what is saved, not what is left": lambda s: 5 * (1 - s) / 6,
        },
    )


def check_attainable(given: Any) -> bool:
    """Exercise 3: a function of intensity and the machine's two limits."""
    return _check_formula(
        "attainable",
        given,
        [(0.5, 100e9, 20e9), (4.0, 100e9, 20e9), (5.0, 100e9, 20e9), (300.0, 100e9, 20e9)],
        lambda i, flops, bandwidth: min(flops, i * bandwidth),
        {
            "you took the larger of the two limits": lambda i, f, b: max(f, i * b),
            "the flat roof is missing": lambda i, f, b: i * b,
            "the slope is missing": lambda i, f, b: f,
            "you divided the bytes by the intensity; operations are bytes times operations per "
            "byte": lambda i, f, b: min(f, b / i),
        },
    )


def check_dW_in_from_pairs(given: Any) -> bool:
    """Exercise 2: the gradient of W_in from a list of pairs."""
    rng = np.random.default_rng(4)
    N, C, F = 7, 3, 5
    on = rng.random((N, F)) < 0.5
    on[:, 4] = False  # a silent unit: its row must be there, and 0
    t, j = np.nonzero(on)
    d, x = rng.standard_normal(len(t)), rng.standard_normal((N, C))
    returned, answer = call("dW_in_from_pairs", given, t, j, d, x, F)
    if not returned:
        return False

    once, with_ones = np.zeros((F, C)), np.zeros((F, C))
    once[j] += d[:, None] * x[t]
    np.add.at(with_ones, j, x[t])
    expected = np.zeros((F, C))
    np.add.at(expected, j, d[:, None] * x[t])
    by_token = np.zeros((N, C))
    np.add.at(by_token, t, d[:, None] * x[t])
    return check(
        "dW_in_from_pairs",
        answer,
        expected,
        {
            "only the last pair of each unit counts: dW_in[j] += ... adds once for each "
            "different j; use np.add.at": once,
            "d is missing": with_ones,
            "you added up by token, not by unit": by_token,
            "the rows of silent units are missing": expected[:4],
        },
    )
