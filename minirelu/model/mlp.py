"""The MLP: F detectors, one per row. This is the reference; ``kernels`` has the fast one.

Hidden unit j looks along row j of ``W_in``; what it sees, plus ``b_in[j]``, goes through the
activation function, and that many times it writes row j of ``W_out``. Where a ReLU is off its
output is exactly 0, which is all that this project is about.
"""

from __future__ import annotations

import numpy as np

from minirelu.model.activation_functions import ActFn, activation_function
from minirelu.model.hooks import Hook, as_it_is
from minirelu.model.linear import linear_backward, linear_forward

# The input, hidden units before the activation function, and after it.
Saved = tuple[np.ndarray, np.ndarray, np.ndarray]
RELU = activation_function("relu")


def mlp_forward(
    x: np.ndarray,
    W_in: np.ndarray,
    b_in: np.ndarray | None,
    W_out: np.ndarray,
    b_out: np.ndarray | None,
    act: ActFn = RELU,
    hook: Hook = as_it_is,
) -> tuple[np.ndarray, Saved]:
    """Compute ``act(x @ W_in.T + b_in) @ W_out + b_out``.

    Parameters
    ----------
    x : ndarray, (..., C)
    W_in, W_out : ndarray, (F, C) each: unit-major
    b_in : ndarray, (F,), or None
    b_out : ndarray, (C,), or None
    act : ActFn
        of ``minirelu.model.activation_functions``.
    hook : callable
        called with ``hook_pre`` and ``hook_post``.

    Returns
    -------
    y : ndarray, (..., C)
    saved : (x, pre, post)
        ``pre`` and ``post`` are (..., F).

    Examples
    --------
    >>> W_in, W_out = np.array([[1.0], [-1.0]]), np.array([[10.0], [20.0]])
    >>> y, (x, pre, post) = mlp_forward(np.array([[3.0]]), W_in, None, W_out, None)
    >>> post, y
    (array([[3., 0.]]), array([[30.]]))
    """
    pre = hook("hook_pre", linear_forward(x, W_in.T, b_in))  # (..., F)
    post = hook("hook_post", act.forward(pre))  # (..., F)
    y = linear_forward(post, W_out, b_out)  # (..., C)
    return y, (x, pre, post)


def mlp_backward(
    dy: np.ndarray,
    W_in: np.ndarray,
    W_out: np.ndarray,
    saved: Saved,
    act: ActFn = RELU,
    l1: float = 0.0,
    hook: Hook = as_it_is,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Backward of :func:`mlp_forward`, and of an L1 penalty on its ``post``.

    Parameters
    ----------
    dy : ndarray, (..., C)
    W_in, W_out : ndarray, (F, C) each
    saved : (x, pre, post), from the forward
    act : ActFn
    l1 : float
        weight of the penalty: see :func:`l1_penalty`.
    hook : callable
        called with the gradients with respect to ``hook_post`` and ``hook_pre``.

    Returns
    -------
    dx : ndarray, (..., C)
    dW_in : ndarray, (F, C)
    db_in : ndarray, (F,)
    dW_out : ndarray, (F, C)
    db_out : ndarray, (C,)

    Examples
    --------
    A unit that is off passes no gradient: its rows stay exactly 0.

    >>> W_in, W_out = np.array([[1.0], [-1.0]]), np.array([[10.0], [20.0]])
    >>> y, saved = mlp_forward(np.array([[3.0]]), W_in, None, W_out, None)
    >>> dx, dW_in, db_in, dW_out, db_out = mlp_backward(np.ones((1, 1)), W_in, W_out, saved)
    >>> dx, dW_in.T, dW_out.T
    (array([[10.]]), array([[30.,  0.]]), array([[3., 0.]]))
    """
    x, pre, post = saved
    dpost, dW_out, db_out = linear_backward(dy, post, W_out)  # y = post @ W_out + b_out
    if l1:
        dpost += l1_backward(post, l1)
    dpre = act.backward(hook("hook_post", dpost), pre)  # post = act(pre)
    dx, dW_in, db_in = linear_backward(hook("hook_pre", dpre), x, W_in.T)  # pre = x @ W_in.T + b_in
    return dx, dW_in.T, db_in, dW_out, db_out


def l1_penalty(post: np.ndarray, l1: float) -> float:
    """``l1`` times the mean over the tokens of the sum over the units of ``|post|``.

    The usual way to have fewer units on. Summed over units, not averaged, so that the same ``l1``
    weighs one unit's activation alike at any width; averaged over tokens, as the loss is.

    Parameters
    ----------
    post : ndarray, (..., F)
    l1 : float
        in nats per unit of activation.

    Examples
    --------
    >>> l1_penalty(np.array([[1.0, 2.0], [0.0, 5.0]]), l1=0.1)
    0.4
    """
    n_tokens = post.size // post.shape[-1]
    return l1 * float(np.abs(post).sum(dtype=np.float64)) / n_tokens


def l1_backward(post: np.ndarray, l1: float) -> np.ndarray:
    """Gradient of :func:`l1_penalty` with respect to ``post``: exactly 0 where that is 0.

    >>> l1_backward(np.array([[1.0, 0.0], [0.0, -5.0]]), l1=0.1)
    array([[ 0.05,  0.  ],
           [ 0.  , -0.05]])
    """
    n_tokens = post.size // post.shape[-1]
    return np.sign(post) * post.dtype.type(l1 / n_tokens)
