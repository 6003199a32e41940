"""What each hidden unit fires on: its most frequent tokens, and its strongest contexts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse

from minirelu.config import ModelConfig
from minirelu.errors import UserError
from minirelu.model.activation_functions import Off, is_on
from minirelu.model.activations import mlp_names
from minirelu.model.transformer import check_tokens, forward
from minirelu.threads import own_threads

_AT_ONCE_BYTES = 1 << 28  # of activations and logits held at a time
_COUNT_BYTES = 1 << 29  # of (token, unit) counts held at a time


class Contexts(NamedTuple):
    """What units of one layer fire on; every array is (U, k), best first.

    Where a unit has fewer than k, ids, sequences and positions are -1, numbers 0.
    """

    tokens: np.ndarray  # ids of the tokens read at most of the unit's firings
    firings: np.ndarray  # at how many positions that read this token the unit was on
    sequences: np.ndarray  # where its activation is largest, one position per sequence
    positions: np.ndarray
    values: np.ndarray  # that activation


def unit_contexts(
    params: Mapping[str, np.ndarray],
    sequences: np.ndarray,
    config: ModelConfig,
    units: Sequence[np.ndarray] | None = None,
    k: int = 5,
    on_read: Callable[[int, int], None] | None = None,
    on_firing: Callable[[int, np.ndarray], None] | None = None,
) -> list[Contexts]:
    """Find the tokens on which units fire most often, and the contexts of their largest values.

    A unit fires on a token where it is on (with ReLU, ``hook_post > 0``) at a position that reads
    it. Every count is exact. Ties go to the smaller token id, the earlier sequence and position.

    The dense reference computes the activations. Where the counts of a probe were made by other
    kernels, an activation within round-off of zero can be on in one and not in the other.

    Memory is bounded: a few sequences at a time, and of the layers as many as half a gigabyte of
    counts allows; each such group of layers costs one more forward pass.

    Parameters
    ----------
    params : mapping of ndarray
    sequences : int ndarray, (S, T + 1)
        the last token of each is a target only, and is not read.
    config : ModelConfig
    units : list of L int arrays, optional
        the units wanted of each layer; without it, all.
    k : int
        tokens and contexts of each unit; 1 or more.
    on_read : callable, optional
        called with the number of sequences just read and of all that will be.
    on_firing : callable, optional
        called with a layer and where its units are on, (n, U) bool, at the n tokens just read.

    Returns
    -------
    list of L Contexts

    Raises
    ------
    ValueError
        sequences of the wrong shape, type or range; k below 1.

    Examples
    --------
    >>> import minirelu as mr
    >>> config = mr.ModelConfig(n_layers=1, n_heads=2, d_model=4, d_mlp=8, n_ctx=6, d_vocab=10)
    >>> contexts = unit_contexts(mr.init_params(config), np.array([[1, 2, 1, 3]]), config, k=2)
    >>> contexts[0].tokens.shape, int(contexts[0].firings.max()) <= 2
    ((8, 2), True)
    """
    if k < 1:
        raise UserError(f"k: {k!r} is not allowed; it must be 1 or more")
    tokens = check_tokens(sequences[:, :-1], config, "tokens")
    if units is None:
        units = [np.arange(F) for F in config.mlp_widths]
    vocabulary, index = np.unique(tokens, return_inverse=True)
    index = index.reshape(tokens.shape)  # which of the tokens that occur, (S, T)

    groups = _groups([len(u) for u in units], len(vocabulary))
    contexts: list[Contexts] = []
    for layers in groups:
        watches = [_Watch(len(units[l]), vocabulary, k, config.activation.off) for l in layers]
        names = [mlp_names(config)[l] for l in layers]
        at_once = _sequences_at_once(config, tokens.shape[1], layers, params)
        for first in range(0, len(tokens), at_once):
            part = slice(first, first + at_once)
            with own_threads():  # many small products are quicker without BLAS's own
                _, acts = forward(params, tokens[part], config, keep=names)
            for watch, name, l in zip(watches, names, layers, strict=True):
                post = acts.pop(name)  # freed once it has been read
                if len(units[l]) < post.shape[-1]:
                    post = post[..., units[l]]
                on = watch.update(post, index[part])
                if on_firing:
                    on_firing(l, on)
            if on_read:
                on_read(len(tokens[part]), len(groups) * len(tokens))
        contexts += [watch.result() for watch in watches]
    return contexts


def _groups(n_units: list[int], n_tokens: int) -> list[list[int]]:
    """Layers, in order, in groups whose counts are held together; at least one in each."""
    groups: list[list[int]] = []
    total = 0
    for l, U in enumerate(n_units):
        size = 4 * n_tokens * U
        if not groups or total + size > _COUNT_BYTES:
            groups.append([])
            total = 0
        groups[-1].append(l)
        total += size
    return groups


def _sequences_at_once(
    config: ModelConfig, T: int, layers: list[int], params: Mapping[str, np.ndarray]
) -> int:
    kept = sum(config.mlp_widths[l] for l in layers)
    # beside what is kept: copies of one layer (pre and post; what is counted), attention, logits
    passing = 4 * max(config.mlp_widths) + 2 * config.n_heads * T + config.d_vocab
    itemsize = params["embed.W_E"].dtype.itemsize
    return max(1, _AT_ONCE_BYTES // (itemsize * T * (kept + passing)))


class _Watch:
    """What is known of a layer's units after some sequences."""

    def __init__(self, U: int, vocabulary: np.ndarray, k: int, off: Off) -> None:
        self.vocabulary = vocabulary
        self.off = off
        self.firings = np.zeros((len(vocabulary), U), np.int32)
        self.read = 0  # sequences so far
        self.values = np.zeros((k, U))
        self.sequences = np.full((k, U), -1)
        self.positions = np.full((k, U), -1)

    def update(self, post: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Read ``post`` (B, T, U) of sequences whose tokens are ``vocabulary[index]``, (B, T).

        Returns where units are on, (B*T, U).
        """
        B, T, U = post.shape
        on = is_on(post, self.off)
        # Row v of ``reads`` is 1 where token v is read: its product with ``on`` counts, for every
        # token and unit, the positions where both are.
        n = index.size
        reads = scipy.sparse.csr_matrix(
            (np.ones(n, np.int32), (index.ravel(), np.arange(n))), (len(self.vocabulary), n)
        )
        self.firings += reads @ on.reshape(n, U).astype(np.int32)

        post = np.where(on, post, 0)
        best = post.argmax(axis=1)  # (B, U)
        value = np.take_along_axis(post, best[:, None], axis=1)[:, 0]
        sequence = np.broadcast_to(self.read + np.arange(B)[:, None], (B, U))
        self.read += B
        self._keep_largest(value, np.where(value > 0, sequence, -1), np.where(value > 0, best, -1))
        return on.reshape(n, U)

    def _keep_largest(self, value: np.ndarray, sequence: np.ndarray, position: np.ndarray) -> None:
        """Of the contexts so far and these, (B, U) each, keep the k largest of every unit."""
        values = np.concatenate([self.values, value])
        # stable: where values are equal, the earlier sequence stays before the later one
        order = np.argsort(-values, axis=0, kind="stable")[: len(self.values)]
        self.values = np.take_along_axis(values, order, axis=0)
        for name, new in (("sequences", sequence), ("positions", position)):
            both = np.concatenate([getattr(self, name), new])
            setattr(self, name, np.take_along_axis(both, order, axis=0))

    def result(self) -> Contexts:
        """Return what was found."""
        k = len(self.values)
        V = len(self.vocabulary)
        # Number of firings and token in one integer, so that ties are decided and all differ.
        keys = self.firings.T.astype(np.int64) * V + np.arange(V)[::-1]  # (U, V)
        if k < V:
            keys = np.partition(keys, V - k, axis=1)[:, V - k :]
        keys = np.sort(keys, axis=1)[:, ::-1]
        firings = keys // V
        tokens = np.where(firings > 0, self.vocabulary[V - 1 - keys % V], -1)
        missing = ((0, 0), (0, k - keys.shape[1]))  # a text of fewer than k tokens
        return Contexts(
            np.pad(tokens, missing, constant_values=-1),
            np.pad(firings, missing),
            self.sequences.T,
            self.positions.T,
            self.values.T,
        )
