"""Answers to the exercises of tutorials 1 and 2, right and typically wrong, and words of the hint.

A row: the answer, and of each line that the check prints, some words.
"""

from __future__ import annotations

import checks_01
import checks_02
import numpy as np

POST = np.maximum(np.random.default_rng(0).normal(size=(8, 12)), 0)


def softmax(s, axis=-1):
    e = np.exp(s - s.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def masked(q, k, scale=True):
    s = q @ k.T / np.sqrt(q.shape[1] if scale else 1)
    return np.where(np.triu(np.ones(s.shape, dtype=bool), 1), -np.inf, s)


def log_p(logits, targets):
    shifted = logits - logits.max(axis=-1, keepdims=True)
    all_of_them = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return all_of_them[np.arange(len(targets)), targets]


def share_on(answer):
    return checks_01.check_share_on(answer(POST), POST)


def reversed_mask(q, k):
    later = np.triu(np.ones((len(q), len(q)), dtype=bool), 1)
    with np.errstate(all="ignore"):
        return softmax(np.where(later, q @ k.T / np.sqrt(q.shape[1]), -np.inf))


HINTS = {
    checks_01.check_pattern: [
        (lambda q, k: softmax(masked(q, k)), "right."),
        (lambda q, k: softmax(masked(q, k, scale=False)), "sqrt(D) is missing"),
        (lambda q, k: softmax(q @ k.T / np.sqrt(3)), "not masked"),
        (lambda q, k: np.tril(softmax(q @ k.T / np.sqrt(3))), "after the softmax"),
        (lambda q, k: softmax(np.tril(q @ k.T / np.sqrt(3))), "not to -inf"),
        (lambda q, k: softmax(masked(q, k), axis=0), "over the queries"),
        (lambda q, k: softmax(masked(k, q)), "changed places"),
        (lambda q, k: masked(q, k), "the softmax is missing"),
        (lambda q, k: q, "shape is (6, 3)"),
        (reversed_mask, "wrong way round"),
        (lambda q, k: softmax(q @ k.T), "neither the mask nor"),
    ],
    share_on: [
        (lambda post: (post > 0).mean(axis=1), "right."),
        (lambda post: (post > 0).mean(axis=0), "the other axis"),
        (lambda post: (post > 0).sum(axis=1), "divide by their number"),
        (lambda post: (post == 0).mean(axis=1), "units that are off"),
        (lambda post: (post >= 0).mean(axis=1), "0 counts as on"),
        (lambda post: (post > 0).mean(), "one for each"),
        (lambda post: post.mean(axis=1), "only whether a unit is on"),
        (lambda post: (post > 0).sum(axis=1) / 8, "number of tokens"),
    ],
    checks_01.check_losses: [
        (lambda z, t: -log_p(z, t), "right.", "large logits: right."),
        (lambda z, t: log_p(z, t), "the sign is missing"),
        (lambda z, t: -log_p(z, t).mean(), "this is the mean"),
        (lambda z, t: -log_p(z, t) / np.log(2), "bits, not nats"),
        (lambda z, t: np.exp(log_p(z, t)), "take -log"),
        (lambda z, t: -np.log(softmax(z)), "pick the target's"),
        (lambda z, t: -np.log(softmax(z, axis=0)[np.arange(6), t]), "over the positions"),
        (
            lambda z, t: -np.log((np.exp(z) / np.exp(z).sum(axis=1, keepdims=True))[range(6), t]),
            "right.",
            "exp overflowed",
        ),
        (lambda z, t: -np.log(softmax(z)[np.arange(len(t)), t]), "right.", "took its log"),
    ],
    checks_02.check_wrong_line: [
        ("dscores", "right."),
        ("dz", "not yet."),
        ("dpattern", "not yet."),
        ("dv", "not yet."),
        ("dq", "not yet."),
        ("dk", "not yet."),
        ("dx", "not yet."),
        ("dw", "not yet."),
    ],
    checks_02.check_unembedding_backward: [
        (lambda d, x, W: (d @ W, d.T @ x), "dx: right.", "dW_E: right."),
        (lambda d, x, W: (d @ W, x.T @ d), "dx: right.", "W_E has one row per token"),
        (lambda d, x, W: (d.T @ x, d @ W), "changed places", "changed places"),
        (lambda d, x, W: (d @ W, d.T @ x / 5), "dx: right.", "number of tokens"),
        (lambda d, x, W: (-(d @ W), d.T @ x), "The sign", "dW_E: right."),
        (lambda d, x, W: (d @ W, None), "dx: right.", "not answered yet"),
        (lambda d, x, W: d @ W, "Return two arrays"),
    ],
    checks_02.check_squared_relu_backward: [
        (lambda dy, x: dy * 2 * np.maximum(x, 0), "right."),
        (lambda dy, x: dy * np.maximum(x, 0), "factor 2"),
        (lambda dy, x: dy * (x > 0), "plain ReLU"),
        (lambda dy, x: dy * 2 * x, "units that are off"),
        (lambda dy, x: 2 * np.maximum(x, 0), "dy is missing"),
        (lambda dy, x: np.maximum(x, 0) ** 2, "the forward"),
        (lambda dy, x: -dy * 2 * np.maximum(x, 0), "The sign"),
    ],
}
