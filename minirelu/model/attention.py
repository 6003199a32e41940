"""Causal multi-head self-attention (Vaswani et al. 2017, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minirelu.model.hooks import Hook, as_it_is
from minirelu.model.linear import linear_backward, linear_forward

# Takes the new keys and values, and returns those of all positions so far: (B, t, H, D) each.
Past = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def attention_forward(
    x: np.ndarray,
    p: Mapping[str, Any],
    n_heads: int,
    hook: Hook = as_it_is,
    past: Past | None = None,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Let every position read from itself and the positions before it.

    Parameters
    ----------
    x : ndarray, (B, T, C)
    p : mapping
        ``W_Q, W_K, W_V, W_O`` (C, C), and ``b_Q, b_K, b_V, b_O`` (C,) or None.
    n_heads : int
        H; head h owns columns h*D to (h+1)*D of Q, K and V.
    hook : callable
        called with ``hook_q``, ``hook_k``, ``hook_v`` and ``hook_z`` (B, T, H, D),
        ``hook_attn_scores`` and ``hook_pattern`` (B, H, T, T).
    past : callable, optional
        when generating: puts keys and values of earlier positions before the new ones.

    Returns
    -------
    out : ndarray, (B, T, C)
    saved : dict
        ``q, k, v, z``, ``pattern``, and ``softmax``: the pattern as the softmax made it. Scores of
        later positions are -inf, their pattern is exactly 0.

    Examples
    --------
    >>> p = {name: np.eye(2) for name in ("W_Q", "W_K", "W_V", "W_O")}
    >>> p |= {name: None for name in ("b_Q", "b_K", "b_V", "b_O")}
    >>> out, saved = attention_forward(np.array([[[1.0, 0.0], [1.0, 0.0]]]), p, n_heads=1)
    >>> saved["pattern"]
    array([[[[1. , 0. ],
             [0.5, 0.5]]]])
    """
    B, T, C = x.shape
    D = C // n_heads
    q = hook("hook_q", linear_forward(x, p["W_Q"], p["b_Q"]).reshape(B, T, n_heads, D))
    k = hook("hook_k", linear_forward(x, p["W_K"], p["b_K"]).reshape(B, T, n_heads, D))
    v = hook("hook_v", linear_forward(x, p["W_V"], p["b_V"]).reshape(B, T, n_heads, D))
    if past is not None:
        k, v = past(k, v)

    # dividing q is cheaper than dividing the scores, of which there are more
    scores = by_head(q / math.sqrt(D)) @ by_head(k).swapaxes(-1, -2)  # (B, H, T, T): query, key
    scores += causal_mask(T, k.shape[1], x.dtype)
    probs = softmax(hook("hook_attn_scores", scores))  # (B, H, T, T)
    pattern = hook("hook_pattern", probs)
    z = hook("hook_z", np.ascontiguousarray(by_head(pattern @ by_head(v))))  # (B, T, H, D)
    out = linear_forward(z.reshape(B, T, C), p["W_O"], p["b_O"])  # (B, T, C)
    return out, {"q": q, "k": k, "v": v, "softmax": probs, "pattern": pattern, "z": z}


def attention_backward(
    dout: np.ndarray,
    x: np.ndarray,
    p: Mapping[str, Any],
    saved: Mapping[str, np.ndarray],
    hook: Hook = as_it_is,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Backward of :func:`attention_forward`.

    Parameters
    ----------
    dout : ndarray, (B, T, C)
    x : ndarray, (B, T, C)
        the forward's input.
    p : mapping
        the forward's parameters.
    saved : mapping
        the forward's ``q, k, v, softmax, pattern, z``; the scores are not needed.
    hook : callable
        called with the gradients with respect to what the forward's was called with.

    Returns
    -------
    dx : ndarray, (B, T, C)
    dp : dict
        gradients of all of ``p``, named as there.

    Examples
    --------
    The last position's gradient reaches the first one, never the other way round:

    >>> rng = np.random.default_rng(0)
    >>> p = {name: rng.standard_normal((2, 2)) for name in ("W_Q", "W_K", "W_V", "W_O")}
    >>> p |= {name: None for name in ("b_Q", "b_K", "b_V", "b_O")}
    >>> x = rng.standard_normal((1, 2, 2))
    >>> out, saved = attention_forward(x, p, n_heads=1)
    >>> dx, dp = attention_backward(np.array([[[1.0, 1.0], [0.0, 0.0]]]), x, p, saved)
    >>> dx[0, 1]
    array([0., 0.])
    """
    B, T, C = x.shape
    q, k, v, pattern, z = (saved[name] for name in ("q", "k", "v", "pattern", "z"))
    D = q.shape[-1]
    dp = {}

    # out = z @ W_O + b_O
    dz, dp["W_O"], dp["b_O"] = linear_backward(dout, z.reshape(B, T, C), p["W_O"])
    dz = by_head(hook("hook_z", dz.reshape(q.shape)))  # (B, H, T, D)
    # z = pattern @ v
    dpattern = hook("hook_pattern", dz @ by_head(v).swapaxes(-1, -2))  # (B, H, T, T)
    dv = pattern.swapaxes(-1, -2) @ dz  # (B, H, T, D)
    # pattern = softmax(scores); where the mask made it 0, dscores is exactly 0
    probs = saved["softmax"]
    mean = np.einsum("bhqk,bhqk->bhq", dpattern, probs)[..., None]  # (B, H, T, 1)
    dscores = hook("hook_attn_scores", probs * (dpattern - mean))  # (B, H, T, T)
    # scores = (q / sqrt(D)) @ k.T
    dq = dscores @ by_head(k / math.sqrt(D))  # (B, H, T, D)
    dk = dscores.swapaxes(-1, -2) @ by_head(q / math.sqrt(D))  # (B, H, T, D)
    # q = x @ W_Q + b_Q, and so on: x was used three times, so three gradients add up
    dx = np.zeros_like(x)
    for name, d in (("Q", dq), ("K", dk), ("V", dv)):
        d = hook(f"hook_{name.lower()}", by_head(d)).reshape(B, T, C)
        dx_part, dp["W_" + name], dp["b_" + name] = linear_backward(d, x, p["W_" + name])
        dx += dx_part
    return dx, dp


def by_head(a: np.ndarray) -> np.ndarray:
    """(B, T, H, D) to (B, H, T, D), or back."""
    return a.swapaxes(1, 2)


def causal_mask(n_queries: int, n_keys: int, dtype: np.dtype) -> np.ndarray:
    """0 where a query may look, -inf at later positions; the queries' are the last positions.

    >>> causal_mask(2, 3, np.float32)
    array([[  0.,   0., -inf],
           [  0.,   0.,   0.]], dtype=float32)
    """
    query = np.arange(n_keys - n_queries, n_keys)[:, None]
    return np.where(np.arange(n_keys) > query, -np.inf, 0.0).astype(dtype)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Exponentials along the last axis, divided by their sum.

    >>> softmax(np.array([1000.0, 1000.0, -np.inf]))
    array([0.5, 0.5, 0. ])
    """
    pattern = scores - scores.max(axis=-1, keepdims=True)  # so that exp cannot overflow
    np.exp(pattern, out=pattern)
    pattern /= pattern.sum(axis=-1, keepdims=True)
    return pattern
