"""Checks of the exercises of tutorial 2: each answers with a sentence, and never raises."""

from __future__ import annotations

from typing import Any

import numpy as np
from common import call, check

_HINTS = {
    "dz": "dz comes before all four, and W_V, which is computed from it, is right",
    "dpattern": "it comes from dz and v alone, by the rule of the linear map; go one line on",
    "dv": "dW_V is computed from it, and is right",
    "dq": "it is wrong, but so is dk, and this line is right: look at what both come from",
    "dk": "it is wrong, but so is dq, and this line is right: look at what both come from",
    "dx": "it is wrong because of what it comes from",
    "grads": "which array do the wrong gradients have in common?",
}


def check_wrong_line(given: Any) -> bool:
    """Check the name of the array that the wrong line of ``hasty_attention_backward`` makes."""
    if given is None or given is ...:
        print("wrong_line: not answered yet.")
        return False
    if not isinstance(given, str):
        print('wrong_line: not yet. Give a name in quotes, such as "dz".')
        return False
    name = given.strip()
    if name == "dscores":
        print("wrong_line: right. The sum belongs to each query (axis=-1), not to each key.")
        return True
    if name in _HINTS:
        print(f"wrong_line: not yet. {_HINTS[name][0].upper()}{_HINTS[name][1:]}.")
    else:
        print(f"wrong_line: not yet. Give one of {', '.join([*_HINTS][:3])}, dscores, dq, dk, dx.")
    return False


def check_unembedding_backward(function: Any) -> bool:
    """Check ``my_unembedding_backward(dlogits, x, W_E)``: to dx and dW_E."""
    rng = np.random.default_rng(0)
    dlogits, x, W_E = rng.normal(size=(5, 7)), rng.normal(size=(5, 3)), rng.normal(size=(7, 3))
    returned, given = call("my_unembedding_backward", function, dlogits, x, W_E)
    if not returned:
        return False
    if not isinstance(given, tuple | list) or len(given) != 2:
        print("my_unembedding_backward: not yet. Return two arrays: dx, dW_E.")
        return False
    dx, dW_E = dlogits @ W_E, dlogits.T @ x
    swapped = {"dx and dW_E have changed places": dW_E}
    right = [
        check("dx", given[0], dx, swapped),
        check(
            "dW_E",
            given[1],
            dW_E,
            {
                "dx and dW_E have changed places": dx,
                "this is the gradient of W_E.T; W_E has one row per token": dW_E.T,
                "you divide by the number of tokens: dlogits has that factor already": dW_E / 5,
            },
        ),
    ]
    return all(right)


def check_squared_relu_backward(function: Any) -> bool:
    """Check ``my_squared_relu_backward(dy, x)``: to dx."""
    rng = np.random.default_rng(1)
    dy, x = rng.normal(size=(4, 6)), rng.normal(size=(4, 6))
    returned, given = call("my_squared_relu_backward", function, dy, x)
    if not returned:
        return False
    on = x > 0
    mistakes = {
        "the factor 2 of the square is missing": dy * on * x,
        "this is the plain ReLU's; the square's derivative 2 * x is missing": dy * on,
        "units that are off let the gradient through": dy * 2 * x,
        "dy is missing: this is only the operation's own derivative": 2 * on * x,
        "this is the forward: max(x, 0)**2": on * x**2,
    }
    return check("my_squared_relu_backward", given, dy * 2 * x * on, mistakes)
