"""Worked solutions of tutorial 4."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from checks_04 import check_arithmetic_left, check_attainable, check_dW_in_from_pairs


# Exercise 1. One product of six stays whole, five shrink to the share that is on.
def arithmetic_left(s: float) -> float:
    """Operations of the sparse MLP over those of the dense one: 1 if all are on."""
    return (1 + 5 * s) / 6


assert check_arithmetic_left(arithmetic_left)
print(f"at 5 %: {arithmetic_left(0.05):.3f}; with no unit on, a sixth: {arithmetic_left(0):.3f}")
assert round(arithmetic_left(0.05), 3) == 0.208


# Exercise 2. dW_in[j] += ... would compute the right side first, and then write each row once: of
# all pairs of a unit only the last would count. np.add.at adds every one of them.
def dW_in_from_pairs(t, j, d, x, F):
    """``dpre.T @ x`` where dpre is d at the pairs (t, j), and 0 elsewhere."""
    dW_in = np.zeros((F, x.shape[1]), x.dtype)  # (F, C)
    np.add.at(dW_in, j, d[:, None] * x[t])
    return dW_in


assert check_dW_in_from_pairs(dW_in_from_pairs)


# Exercise 3. Both limits hold, so the lower one decides.
def attainable(intensity: float, matmul_flops: float, copy_bytes: float) -> float:
    """Operations a second, at best."""
    return min(matmul_flops, intensity * copy_bytes)


assert check_attainable(attainable)
