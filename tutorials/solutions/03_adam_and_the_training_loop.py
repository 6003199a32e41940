"""Worked solutions of tutorial 3."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from checks_03 import check_adam_l2, check_linear_lr, check_steps_to_90_percent

# Exercise 1. 1 - beta**step >= 0.9 means beta**step <= 0.1. The logarithm of both sides, divided by
# log(beta), which is negative and so turns the sign round: step >= log(0.1) / log(beta).
# About 2.3 / (1 - beta): minirelu's v remembers some 45 steps, the customary one over 2000.
steps_to_90_percent = np.ceil(np.log(0.1) / np.log([0.9, 0.95, 0.999]))
assert check_steps_to_90_percent(steps_to_90_percent)
assert steps_to_90_percent.tolist() == [22, 45, 2302]


# Exercise 2. The same `done` as for the cosine, which goes from 0 to 1; 1 - done takes its place.
def linear_lr(step: int, steps: int, peak: float, warmup: int, final: float) -> float:
    """Rise to ``peak`` over ``warmup`` steps, then fall in a straight line."""
    if step < warmup:
        return peak * step / warmup
    done = (step - warmup) / (steps - warmup)
    return peak * (final + (1 - final) * (1 - done))


assert check_linear_lr(linear_lr)


# Exercise 3. One line more than Adam: what decays goes through m and v with the rest.
def adam_l2(p, g, m, v, step, lr, beta1, beta2, eps, decay):
    """One step with the decay in the gradient; returns the new p, m, v."""
    g = g + decay * p
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    p = p - lr * (m / (1 - beta1**step)) / (np.sqrt(v / (1 - beta2**step)) + eps)
    return p, m, v


assert check_adam_l2(adam_l2)

p, m, v = np.ones(2), np.zeros(2), np.zeros(2)
for step in range(1, 2001):
    g = np.array([1.0, 0.1]) * (-1) ** step
    p, m, v = adam_l2(p, g, m, v, step, 0.001, 0.9, 0.95, 1e-8, 0.1)
print("after 2000 steps:", p.round(3))
assert p[0] > 0.8 and p[1] < 0.3
