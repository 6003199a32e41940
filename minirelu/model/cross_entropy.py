"""Softmax cross-entropy: how surprised the model is by each next token, in nats."""

from __future__ import annotations

import numpy as np

Saved = tuple[np.ndarray, np.ndarray]


def token_losses(logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """-log p(target) of each token, where p = softmax(logits).

    The largest logit is subtracted first, so that no logit, however large, overflows.

    Parameters
    ----------
    logits : ndarray, (B, T, V)
    targets : int ndarray, (B, T)

    Returns
    -------
    losses : ndarray, (N,)
        in nats, N = B*T.
    probs : ndarray, (N, V)

    Examples
    --------
    >>> losses, probs = token_losses(np.zeros((1, 1, 2)), np.array([[1]]))
    >>> losses.round(4), probs
    (array([0.6931]), array([[0.5, 0.5]]))
    """
    flat_targets = targets.reshape(-1)  # (N,)
    rows = np.arange(flat_targets.size)
    shifted = logits.reshape(flat_targets.size, -1)  # (N, V)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    target_logits = shifted[rows, flat_targets]  # (N,)
    probs = np.exp(shifted, out=shifted)
    total = probs.sum(axis=-1, keepdims=True)  # (N, 1)
    losses = np.log(total[:, 0]) - target_logits  # (N,)
    probs /= total
    return losses, probs


def cross_entropy_forward(logits: np.ndarray, targets: np.ndarray) -> tuple[float, Saved]:
    """Average the losses of all tokens.

    Parameters
    ----------
    logits : ndarray, (B, T, V)
    targets : int ndarray, (B, T)

    Returns
    -------
    loss : float
        mean, in nats; averaged in float64.
    saved : (probs, targets)
        ``probs`` is (N, V).

    Examples
    --------
    >>> loss, saved = cross_entropy_forward(np.zeros((1, 1, 8)), np.array([[3]]))
    >>> bool(np.isclose(loss, np.log(8)))
    True
    """
    losses, probs = token_losses(logits, targets)
    return float(losses.mean(dtype=np.float64)), (probs, targets)


def cross_entropy_backward(saved: Saved) -> np.ndarray:
    """Gradient of the mean loss: (probs - onehot(targets)) / N. Overwrites the saved ``probs``.

    Parameters
    ----------
    saved : (probs, targets), from the forward

    Returns
    -------
    dlogits : ndarray, (B, T, V)

    Examples
    --------
    >>> loss, saved = cross_entropy_forward(np.zeros((1, 1, 2)), np.array([[1]]))
    >>> cross_entropy_backward(saved)
    array([[[ 0.5, -0.5]]])
    """
    probs, targets = saved
    N = targets.size
    dlogits = probs  # (N, V)
    dlogits[np.arange(N), targets.reshape(-1)] -= 1  # loss = -log probs[target]
    dlogits /= N  # the loss is a mean over N tokens
    return dlogits.reshape(*targets.shape, -1)


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
    """Loss and its gradient in one call.

    Parameters
    ----------
    logits : ndarray, (B, T, V)
    targets : int ndarray, (B, T)

    Returns
    -------
    loss : float
        mean over the B*T tokens, in nats.
    dlogits : ndarray, (B, T, V)

    Examples
    --------
    >>> loss, dlogits = cross_entropy(np.zeros((1, 1, 2)), np.array([[0]]))
    >>> dlogits
    array([[[-0.5,  0.5]]])
    """
    loss, saved = cross_entropy_forward(logits, targets)
    return loss, cross_entropy_backward(saved)
