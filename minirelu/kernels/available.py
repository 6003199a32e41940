"""Which activation functions have kernels. No Numba here: asking costs nothing."""

from __future__ import annotations

COMPILED = ("relu", "relu2", "leaky_relu", "gelu", "topk")
# Of these, the ones that are exactly 0 where a unit is off, so that it can be left out.
SPARSE = ("relu", "relu2", "topk")
