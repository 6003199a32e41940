"""Writing text token by token, with a cache of the keys and values of what was read before."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from minirelu.config import ModelConfig
from minirelu.errors import UserError
from minirelu.model.attention import softmax
from minirelu.model.embedding import embedding_forward, unembedding_forward
from minirelu.model.transformer import block_forward, check_tokens, norm


class Cache:
    """Keys and values of every layer for the positions read so far.

    Attributes
    ----------
    length : int
        positions read so far; they are ``k[:, :, :length]``.
    k, v : ndarray, (L, B, n_ctx, H, D)
    """

    def __init__(self, config: ModelConfig, batch_size: int, dtype: np.dtype) -> None:
        heads = (config.n_heads, config.d_head)
        self.length = 0
        self.k = np.zeros((config.n_layers, batch_size, config.n_ctx, *heads), dtype)
        self.v = np.zeros_like(self.k)

    def add(self, l: int, k: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Append new ones (B, T, H, D) of layer l to those read; return all, (B, t, H, D)."""
        stop = self.length + k.shape[1]
        self.k[l, :, self.length : stop] = k
        self.v[l, :, self.length : stop] = v
        return self.k[l, :, :stop], self.v[l, :, :stop]


def forward_cached(
    params: Mapping[str, np.ndarray], tokens: np.ndarray, config: ModelConfig, cache: Cache
) -> np.ndarray:
    """Read more tokens, reusing the keys and values of those before.

    Equal to the same positions of :func:`minirelu.forward` over the whole sequence.

    Parameters
    ----------
    params : mapping of ndarray
    tokens : int ndarray, (B, T)
        the new ones.
    config : ModelConfig
    cache : Cache
        gets the new keys and values.

    Returns
    -------
    logits : ndarray, (B, T, V)
        of the new positions.

    Raises
    ------
    ValueError
        with the new tokens the sequence is longer than ``n_ctx``.

    Examples
    --------
    >>> import minirelu as mr
    >>> config = mr.ModelConfig(n_layers=1, n_heads=2, d_model=4, d_mlp=8, n_ctx=6, d_vocab=10)
    >>> params, tokens = mr.init_params(config, dtype=np.float64), np.array([[1, 2, 3]])
    >>> cache = Cache(config, 1, np.float64)
    >>> parts = [forward_cached(params, tokens[:, i : i + 1], config, cache) for i in range(3)]
    >>> bool(np.allclose(np.concatenate(parts, axis=1), mr.forward(params, tokens, config)[0]))
    True
    """
    tokens = check_tokens(tokens, config, "tokens")
    start, stop = cache.length, cache.length + tokens.shape[1]
    if stop > config.n_ctx:
        raise UserError(f"{stop} positions; the model has n_ctx {config.n_ctx}")

    embed, pos = embedding_forward(tokens, params["embed.W_E"], params["pos_embed.W_pos"], start)
    x = embed + pos  # (B, T, C)
    for l in range(config.n_layers):
        x = block_forward(x, params, l, config, past=partial(cache.add, l))
    cache.length = stop
    return unembedding_forward(norm(params, "ln_final", x, config), params["embed.W_E"])


def generate(
    params: Mapping[str, np.ndarray],
    prompt: Sequence[int],
    config: ModelConfig,
    n_tokens: int,
    temperature: float = 1.0,
    top_k: int = 0,
    seed: int = 0,
    stop_at: int | None = None,
) -> Iterator[int]:
    """Continue a prompt, one token at a time.

    When the context is full, the model goes on from the last half of it: positions are learned,
    so there are none beyond ``n_ctx``.

    Parameters
    ----------
    params : mapping of ndarray
    prompt : sequence of int
        at least one token.
    config : ModelConfig
    n_tokens : int
        how many to write at most.
    temperature : float
        logits are divided by it; 0 always takes the likeliest token.
    top_k : int
        only among the k likeliest; 0: among all.
    seed : int
        same seed, same text.
    stop_at : int, optional
        a token that ends the text, and is not written.

    Yields
    ------
    int
        the next token.

    Raises
    ------
    ValueError
        an empty prompt, a negative temperature, or a negative ``top_k``.

    Examples
    --------
    >>> import minirelu as mr
    >>> config = mr.ModelConfig(n_layers=1, n_heads=2, d_model=4, d_mlp=8, n_ctx=6, d_vocab=10)
    >>> params = mr.init_params(config)
    >>> len(list(generate(params, [1, 2], config, n_tokens=9)))
    9
    """
    if len(prompt) == 0:
        raise UserError("the prompt is empty; give it at least one token")
    if not (temperature >= 0 and math.isfinite(temperature)):
        raise UserError(f"temperature: {temperature} is not allowed; it must be 0 or more")
    if top_k < 0:
        raise UserError(f"top_k: {top_k} is not allowed; it must be 0 or more")
    rng = np.random.default_rng(seed)
    text = list(prompt)
    cache = Cache(config, 1, params["embed.W_E"].dtype)
    new = text[-config.n_ctx :]
    for _ in range(n_tokens):
        if cache.length + len(new) > config.n_ctx:
            cache.length = 0
            new = text[-max(1, config.n_ctx // 2) :]
        logits = forward_cached(params, np.array([new]), config, cache)[0, -1]
        token = _draw(logits.astype(np.float64), temperature, top_k, rng)
        if token == stop_at:
            return
        text.append(token)
        new = [token]
        yield token


def _draw(logits: np.ndarray, temperature: float, top_k: int, rng: np.random.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    if 0 < top_k < logits.size:
        kth = np.partition(logits, -top_k)[-top_k]
        logits = np.where(logits < kth, -np.inf, logits)
    with np.errstate(over="ignore"):  # a tiny temperature makes all but the largest -inf
        probs = softmax((logits - logits.max()) / temperature)
    return int(rng.choice(logits.size, p=probs))
