"""Where every hidden unit is on: one pass over a text, held as bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np

from minirelu.config import ModelConfig
from minirelu.model.activation_functions import Off, is_on
from minirelu.model.activations import mlp_names
from minirelu.model.cross_entropy import token_losses
from minirelu.model.transformer import check_tokens, forward
from minirelu.threads import n_threads, own_threads

_AT_ONCE_BYTES = 1 << 27  # of activations and logits held at a time by each thread
_BITS_BYTES = 1 << 29  # of bits held at a time
_BLOCK = 1 << 22  # pairs (unit, token) unpacked at a time
R = TypeVar("R")


class Firings(NamedTuple):
    """Where units of one layer are on.

    ``layer`` is its number, ``units`` (U,) which of its units; ``bits`` (U, ceil(N/8)) uint8 are
    packed along the N tokens, sequence after sequence; ``loss`` is the model's on this text, in
    nats.
    """

    layer: int
    units: np.ndarray
    bits: np.ndarray
    n_tokens: int
    loss: float

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Unpack some units at a time: which rows they are, and their pattern (u, N), bool.

        >>> [on.sum(axis=1) for _, on in firings_of(np.array([[0, 1, 1], [0, 0, 0]])).blocks()]
        [array([2, 0])]
        """
        at_once = max(1, _BLOCK // max(1, self.n_tokens))
        for first in range(0, len(self.bits), at_once):
            rows = slice(first, min(first + at_once, len(self.bits)))
            yield rows, np.unpackbits(self.bits[rows], axis=1, count=self.n_tokens).view(bool)


def firings_of(on: np.ndarray, layer: int = 0) -> Firings:
    """Return the firings of a pattern that is known: ``on``, (U, N), bool."""
    U, N = on.shape
    return Firings(layer, np.arange(U), np.packbits(on.astype(bool), axis=1), N, math.nan)


def read_firings(
    params: Mapping[str, np.ndarray],
    sequences: np.ndarray,
    config: ModelConfig,
    units: Sequence[np.ndarray] | None = None,
    on_read: Callable[[int, int], None] | None = None,
) -> Iterator[Firings]:
    """Read a text, and hand out one layer after the other.

    The dense reference computes the activations. Memory is bounded: a few sequences at a time,
    and of the layers as many as half a gigabyte of bits allows; each such group of layers costs
    one more forward pass.

    Parameters
    ----------
    params : mapping of ndarray
    sequences : int ndarray, (S, T + 1)
        inputs and, one further, targets.
    config : ModelConfig
    units : list of L int arrays, optional
        the units wanted of each layer; without it, all.
    on_read : callable, optional
        called with the number of sequences just read and of all that will be.

    Yields
    ------
    Firings
        of each layer, from the first to the last.

    Raises
    ------
    ValueError
        sequences of the wrong shape, type or range.

    Examples
    --------
    >>> import minirelu as mr
    >>> config = mr.ModelConfig(n_layers=2, n_heads=2, d_model=4, d_mlp=8, n_ctx=6, d_vocab=10)
    >>> each = read_firings(mr.init_params(config), np.array([[1, 2, 1, 3]]), config)
    >>> [(firings.layer, firings.bits.shape, firings.n_tokens) for firings in each]
    [(0, (8, 1), 3), (1, (8, 1), 3)]
    """
    tokens = check_tokens(sequences[:, :-1], config, "tokens")
    targets = check_tokens(sequences[:, 1:], config, "targets")
    if units is None:
        units = [np.arange(F) for F in config.mlp_widths]
    S, T = tokens.shape
    names, n_bytes = mlp_names(config), -(-tokens.size // 8)
    groups = _groups([len(u) for u in units], n_bytes)
    for layers in groups:
        bits = {l: np.empty((len(units[l]), n_bytes), np.uint8) for l in layers}
        at_once = _sequences_at_once(params, config, T, layers)

        def read(first: int, layers=layers, bits=bits, at_once=at_once) -> tuple[int, float]:
            part = slice(first, first + at_once)
            logits, acts = forward(params, tokens[part], config, keep=[names[l] for l in layers])
            nats = token_losses(logits, targets[part])[0].sum(dtype=np.float64)
            for l in layers:
                packed = _packed(acts.pop(names[l]), units[l], config.activation.off)
                start = first * T // 8  # every part but the last fills whole bytes
                bits[l][:, start : start + packed.shape[1]] = packed
            return len(logits), float(nats)

        total = 0.0
        for n, nats in _in_threads(read, range(0, S, at_once)):
            total += nats
            if on_read:
                on_read(n, len(groups) * S)
        for l in layers:
            yield Firings(l, units[l], bits.pop(l), tokens.size, total / tokens.size)


def _in_threads(read: Callable[[int], R], parts: Iterable[int]) -> Iterator[R]:
    """Call for each part, one part to a thread: quicker than many small products with all."""
    with own_threads():
        pool = ThreadPoolExecutor(n_threads())
        try:
            yield from pool.map(read, parts)
        finally:
            pool.shutdown(cancel_futures=True)


def _packed(post: np.ndarray, units: np.ndarray, off: Off) -> np.ndarray:
    """Bits of some sequences: (B, T, F) -> (U, ceil(B*T/8))."""
    B, T, F = post.shape
    if len(units) < F:
        post = post[..., units]
    on = is_on(post, off).reshape(B * T, len(units))
    return np.packbits(np.ascontiguousarray(on.T), axis=1)


def _groups(n_units: list[int], n_bytes: int) -> list[list[int]]:
    """Layers, in order, in groups whose bits are held together; at least one in each."""
    groups: list[list[int]] = []
    total = 0
    for l, U in enumerate(n_units):
        if not groups or total + U * n_bytes > _BITS_BYTES:
            groups.append([])
            total = 0
        groups[-1].append(l)
        total += U * n_bytes
    return groups


def _sequences_at_once(
    params: Mapping[str, np.ndarray], config: ModelConfig, T: int, layers: list[int]
) -> int:
    """As many as fit, in multiples whose tokens fill whole bytes."""
    kept = sum(config.mlp_widths[l] for l in layers)
    # beside what is kept: copies of one layer, attention, logits and their softmax
    passing = 3 * max(config.mlp_widths) + 2 * config.n_heads * T + 2 * config.d_vocab
    itemsize = params["embed.W_E"].dtype.itemsize
    multiple = 8 // math.gcd(8, T)
    return max(1, _AT_ONCE_BYTES // (itemsize * T * (kept + passing)) // multiple) * multiple
