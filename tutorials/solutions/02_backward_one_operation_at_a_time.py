"""Solutions of tutorial 2's exercises. Try them yourself first."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from checks_02 import check_squared_relu_backward, check_unembedding_backward, check_wrong_line

# dq and dk, and so W_Q and W_K, are computed from dscores; W_V and W_O are not. The line that makes
# it sums over axis 0, the queries. Each query has its own softmax, over the keys:
#
#     dscores = pattern * (dpattern - (dpattern * pattern).sum(axis=-1, keepdims=True))
#
# db_K gave it away too: with the right sum every row of dscores adds up to 0, and so db_K is 0.
wrong_line = "dscores"
assert check_wrong_line(wrong_line)


def my_unembedding_backward(
    dlogits: np.ndarray, x: np.ndarray, W_E: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(N, V), (N, C) and (V, C) to dx (N, C) and dW_E (V, C)."""
    dx = dlogits @ W_E  # logits = x @ W_E.T, with respect to x
    dW_E = dlogits.T @ x  # ... with respect to W_E
    return dx, dW_E


assert check_unembedding_backward(my_unembedding_backward)


def my_squared_relu_backward(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """dx, of the shape of x."""
    return dy * 2 * np.maximum(x, 0)  # the ReLU itself is 0 where the unit is off


assert check_squared_relu_backward(my_squared_relu_backward)
