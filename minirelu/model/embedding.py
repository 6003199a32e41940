"""Tokens to vectors (token plus position), and vectors back to logits with the same matrix."""

from __future__ import annotations

import numpy as np


def embedding_forward(
    tokens: np.ndarray, W_E: np.ndarray, W_pos: np.ndarray, start: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Look up each token and each position; the caller adds the two.

    Parameters
    ----------
    tokens : int ndarray, (B, T)
    W_E : ndarray, (V, C)
    W_pos : ndarray, (n_ctx, C)
    start : int
        position of the first token; more than 0 only when generating with a cache.

    Returns
    -------
    embed, pos_embed : ndarray, (B, T, C) each; ``pos_embed`` is a read-only view.

    Examples
    --------
    >>> embed, pos = embedding_forward(np.array([[1, 0]]), np.eye(2), np.full((4, 2), 0.5))
    >>> embed + pos
    array([[[0.5, 1.5],
            [1.5, 0.5]]])
    """
    embed = W_E[tokens]  # (B, T, C)
    pos_embed = np.broadcast_to(W_pos[start : start + tokens.shape[1]], embed.shape)  # (B, T, C)
    return embed, pos_embed


def embedding_backward(
    dembed: np.ndarray,
    dpos_embed: np.ndarray,
    tokens: np.ndarray,
    dW_E: np.ndarray,
    dW_pos: np.ndarray,
) -> None:
    """Undo the look-ups: each row collects the gradient of every place it was used in.

    Parameters
    ----------
    dembed, dpos_embed : ndarray, (B, T, C) each
        the same array, since the two are added, unless one of them was replaced.
    tokens : int ndarray, (B, T)
    dW_E : ndarray, (V, C)
        added to, since the unembedding has put its own share there.
    dW_pos : ndarray, (n_ctx, C)
        added to; rows from T on stay as they are.

    Examples
    --------
    >>> dW_E, dW_pos = np.zeros((3, 1)), np.zeros((2, 1))
    >>> dx = np.ones((1, 2, 1))
    >>> embedding_backward(dx, dx, np.array([[2, 2]]), dW_E, dW_pos)
    >>> dW_E.T, dW_pos.T
    (array([[0., 0., 2.]]), array([[1., 1.]]))
    """
    np.add.at(dW_E, tokens, dembed)  # embed = W_E[tokens]; a token may occur many times
    # pos_embed = W_pos[:T], the same for every sequence
    dW_pos[: tokens.shape[1]] += dpos_embed.sum(axis=0)


def unembedding_forward(x: np.ndarray, W_E: np.ndarray) -> np.ndarray:
    """Score every token of the vocabulary by its embedding (Press & Wolf 2017: tied weights).

    Parameters
    ----------
    x : ndarray, (B, T, C)
    W_E : ndarray, (V, C)

    Returns
    -------
    logits : ndarray, (B, T, V)

    Examples
    --------
    >>> unembedding_forward(np.array([[[1.0, 2.0]]]), np.eye(2))
    array([[[1., 2.]]])
    """
    B, T, C = x.shape
    return (x.reshape(B * T, C) @ W_E.T).reshape(B, T, -1)  # (B, T, V)


def unembedding_backward(
    dlogits: np.ndarray, x: np.ndarray, W_E: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Backward of :func:`unembedding_forward`.

    Parameters
    ----------
    dlogits : ndarray, (B, T, V)
    x : ndarray, (B, T, C)
    W_E : ndarray, (V, C)

    Returns
    -------
    dx : ndarray, (B, T, C)
    dW_E : ndarray, (V, C)

    Examples
    --------
    >>> dx, dW_E = unembedding_backward(np.ones((1, 1, 2)), np.array([[[1.0, 2.0]]]), np.eye(2))
    >>> dx, dW_E
    (array([[[1., 1.]]]), array([[1., 2.],
           [1., 2.]]))
    """
    dlogits = dlogits.reshape(-1, W_E.shape[0])  # (N, V)
    dx = (dlogits @ W_E).reshape(x.shape)  # logits = x @ W_E.T, with respect to x
    dW_E = dlogits.T @ x.reshape(-1, x.shape[-1])  # ... with respect to W_E
    return dx, dW_E
