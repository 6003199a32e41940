"""Checks of the exercises of tutorial 3: each answers with a sentence, whatever it is given."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from common import call, check


def check_steps_to_90_percent(given: Any) -> bool:
    """Exercise 1: three whole numbers."""
    betas = (0.9, 0.95, 0.999)
    exact = [math.log(0.1) / math.log(beta) for beta in betas]
    return check(
        "steps_to_90_percent",
        given,
        [math.ceil(x) for x in exact],
        {
            "you rounded down; one step more is needed to be there": [math.floor(x) for x in exact],
            "these are not whole numbers yet: round up": exact,
            "you solved beta**step >= 0.9, and not 1 - beta**step >= 0.9": [
                math.floor(math.log(0.9) / math.log(beta)) for beta in betas
            ],
            "you took the rule of thumb 1 / (1 - beta)": [10, 20, 1000],
        },
    )


def check_linear_lr(given: Any) -> bool:
    """Exercise 2: a function of one step, tried at every step."""
    peak, warmup, final, steps = 0.5, 10, 0.2, 60

    def line(first: int, last: int, lowest: float, warm: bool = True) -> list[float]:
        rates = []
        for step in range(1, steps + 1):
            if warm and step < warmup:
                rates.append(peak * step / warmup)
            else:
                done = (step - first) / (last - first)
                rates.append(peak + (lowest - peak) * done)
        return rates

    def half_cosine() -> list[float]:
        done = [(step - warmup) / (steps - warmup) for step in range(1, steps + 1)]
        return [
            peak * (step / warmup)
            if step < warmup
            else peak * (final + (1 - final) * (1 + math.cos(math.pi * x)) / 2)
            for step, x in zip(range(1, steps + 1), done, strict=True)
        ]

    rates = []
    for step in range(1, steps + 1):
        returned, rate = call("linear_lr", given, step, steps, peak, warmup, final)
        if not returned:
            return False
        if rate is None or rate is ...:
            return check("linear_lr", None, 0.0)
        rates.append(rate)
    return check(
        "linear_lr",
        rates,
        line(warmup, steps, final * peak),
        {
            "the line goes down to 0, not to final * peak": line(warmup, steps, 0.0),
            "the line goes down to final, not to final * peak": line(warmup, steps, final),
            "the line starts at step 0, not at step warmup": line(0, steps, final * peak),
            "the line starts at the peak in step warmup, but takes steps steps from there": line(
                warmup, steps + warmup, final * peak
            ),
            "the warm-up is missing": line(warmup, steps, final * peak, warm=False),
            "this is the cosine still": half_cosine(),
        },
    )


def _adam(
    g: np.ndarray, state: tuple[np.ndarray, ...], step: int, numbers: tuple[float, ...],
    decay: float, sign: int = 1, decoupled: bool = False, corrected: bool = True,
) -> np.ndarray:  # fmt: skip
    """New p, m, v, as (3, n), of one step; with the mistakes that one can make."""
    p, m, v = state
    lr, beta1, beta2, eps = numbers
    if not decoupled:
        g = g + sign * decay * p
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    fix1, fix2 = (1 - beta1**step, 1 - beta2**step) if corrected else (1, 1)
    move = m / fix1 / (np.sqrt(v / fix2) + eps)
    return np.array([p - lr * (move + decoupled * decay * p), m, v])


def check_adam_l2(given: Any) -> bool:
    """Exercise 3: one step from a state in the middle of training."""
    rng = np.random.default_rng(3)
    p, g, m = rng.standard_normal((3, 6))
    v = rng.random(6) + 0.5
    step, numbers, decay = 3, (0.01, 0.9, 0.95, 1e-8), 0.3
    returned, answer = call("adam_l2", given, p, g, m, v, step, *numbers, decay)
    if not returned:
        return False
    if isinstance(answer, np.ndarray) and answer.shape == p.shape:
        print("adam_l2: not yet. Return three arrays: the new p, m and v.")
        return False

    def wrong(**mistake: Any) -> np.ndarray:
        return _adam(g, (p, m, v), step, numbers, **{"decay": decay, **mistake})

    return check(
        "adam_l2",
        answer,
        wrong(),
        {
            "the decay is decoupled; it should go into the gradient": wrong(decoupled=True),
            "the decay is missing": wrong(decay=0.0),
            "the decay has the wrong sign": wrong(sign=-1),
            "the bias correction is missing": wrong(corrected=False),
            "m and v are not the new ones": np.array([wrong()[0], m, v]),
        },
    )
