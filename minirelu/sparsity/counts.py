"""Streaming counts of which hidden units fire, from which every measure is computed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from minirelu.config import ModelConfig
from minirelu.errors import UserError
from minirelu.model.activations import mlp_names
from minirelu.model.unit_activity import UnitActivity, unit_activity

# Percentiles of in-sequence frequency are kept at every tenth of a percent, 0 to 100.
TENTHS = 1000


class UnitCounts:
    """How often each hidden unit was on (``hook_post > 0``), per token, sequence and batch.

    Every number is an exact integer, so parts measured separately can be merged, and the order
    in which sequences arrive does not matter. Its size does not grow with the text. Batches are
    the one thing that depends on order: they are filled with sequences as they come, 8192 tokens
    each (``batch_tokens``; rounded down to whole sequences), and the last, unfilled one counts
    only while there is no full one. Two parts can be merged as long as their unfilled batches fit
    into one: cut parts at whole batches.

    Parameters
    ----------
    config : ModelConfig
    batch_tokens : int
        tokens of a batch.

    Attributes
    ----------
    n_tokens, n_sequences, n_batches : int
        counted so far; ``n_batches`` are the full ones.
    sequence_length : int
        T, the same for all sequences; 0 before the first.
    tokens_on, sequences_on, batches_on : list of L arrays, (F,) int64
        for each unit, the tokens, sequences and full batches in which it was on.
    total : list of L arrays, (F,) int64
        for each unit, the sum of its activations over all tokens, in units of 2**-20.
    at_positions : ndarray, (L, T + 1) int64
        pairs (unit, sequence) in which the unit was on at exactly k of the T positions.
    first_at : ndarray, (L, T + 1) int64
        pairs (unit, sequence) in which the unit was first on at position t; last, those in which
        it never was.
    percentiles : ndarray, (2, L, 1001) int64
        sums over sequences of each percentile of k, the positions at which a unit was on, in
        thousandths of a position: over the units used in the sequence, and over all units.
    sequences_used : ndarray, (L,) int64
        sequences in which the layer used a unit at all.

    Examples
    --------
    >>> import minirelu as mr
    >>> config = mr.ModelConfig(n_layers=1, n_heads=1, d_model=2, d_mlp=3, n_ctx=4, d_vocab=5)
    >>> counts = mr.UnitCounts(config)
    >>> post = np.array([[[1.0, 0.0, 0.0], [1.0, 0.5, 0.0]]])  # one sequence, two tokens
    >>> counts.update({"blocks.0.mlp.hook_post": post})
    >>> counts.tokens_on[0], counts.at_positions[0]
    (array([2, 1, 0]), array([1, 1, 1]))
    """

    def __init__(self, config: ModelConfig, batch_tokens: int = 8192) -> None:
        L, widths = config.n_layers, config.mlp_widths
        self.config = config
        self.batch_tokens = batch_tokens
        self.sequence_length = 0
        self.n_sequences = 0
        self.n_batches = 0
        self.tokens_on = [np.zeros(F, np.int64) for F in widths]
        self.sequences_on = [np.zeros(F, np.int64) for F in widths]
        self.batches_on = [np.zeros(F, np.int64) for F in widths]
        self.total = [np.zeros(F, np.int64) for F in widths]
        self.at_positions = np.zeros((L, 1), np.int64)
        self.first_at = np.zeros((L, 1), np.int64)
        self.percentiles = np.zeros((2, L, TENTHS + 1), np.int64)
        self.sequences_used = np.zeros(L, np.int64)
        # The batch being filled: how many sequences it has, and which units were on in it.
        self._open_sequences = 0
        self._open_on = [np.zeros(F, bool) for F in widths]

    @property
    def n_tokens(self) -> int:
        """Tokens counted so far."""
        return self.n_sequences * self.sequence_length

    @property
    def sequences_per_batch(self) -> int:
        """Whole sequences that make a batch; at least 1."""
        return max(1, self.batch_tokens // max(1, self.sequence_length))

    def update(self, acts: Mapping[str, np.ndarray]) -> None:
        """Count whole sequences.

        Parameters
        ----------
        acts : mapping
            with ``blocks.{l}.mlp.hook_post``, (B, T, F), of every layer.

        Raises
        ------
        ValueError
            a layer is missing, has the wrong number of units, or another T than before.
        """
        posts: list[np.ndarray] = []
        for name, F in zip(mlp_names(self.config), self.config.mlp_widths, strict=True):
            if name not in acts:
                raise UserError(f"counting needs the activation {name!r}; name it in keep")
            post = acts[name]
            first = posts[0] if posts else post
            if post.ndim != 3 or post.shape != (*first.shape[:2], F):
                raise UserError(f"{name}: shape {post.shape}; must be (B, T, {F})")
            posts.append(post)
        off = self.config.activation.off
        self.add([unit_activity(post, off) for post in posts], posts[0].shape[1])

    def add(self, activity: list[UnitActivity], T: int) -> None:
        """Count whole sequences from what each unit did in them.

        Parameters
        ----------
        activity : list of L UnitActivity
            see ``minirelu.model.unit_activity``.
        T : int
            length of the sequences.

        Raises
        ------
        ValueError
            another T than before.
        """
        self._set_length(T)
        for l, (on, first, total) in enumerate(activity):
            self.tokens_on[l] += on.sum(axis=0)
            self.sequences_on[l] += (on > 0).sum(axis=0)
            self.total[l] += total.sum(axis=0)
            self.first_at[l] += np.bincount(first.ravel(), minlength=T + 1)
            for k in on:
                how_many = np.bincount(k, minlength=T + 1)
                self.at_positions[l] += how_many
                in_order = np.repeat(np.arange(T + 1), how_many)
                silent = how_many[0]
                if silent < len(k):
                    self.percentiles[0, l] += _percentiles(in_order[silent:])
                    self.sequences_used[l] += 1
                self.percentiles[1, l] += _percentiles(in_order)
        self.n_sequences += len(activity[0].on)
        self._fill_batches([a.on > 0 for a in activity])

    def _set_length(self, T: int) -> None:
        if self.sequence_length not in (0, T):
            raise UserError(
                f"sequences of {T} tokens among sequences of {self.sequence_length}: count them "
                "separately, their frequencies cannot be compared"
            )
        if not self.sequence_length:
            self.sequence_length = T
            self.at_positions = np.zeros((self.config.n_layers, T + 1), np.int64)
            self.first_at = np.zeros((self.config.n_layers, T + 1), np.int64)

    def _fill_batches(self, used: list[np.ndarray]) -> None:
        """Add sequences to the open batch; ``used`` are L arrays (B, F)."""
        start, B = 0, len(used[0])
        while start < B:
            stop = min(B, start + self.sequences_per_batch - self._open_sequences)
            for on, u in zip(self._open_on, used, strict=True):
                on |= u[start:stop].any(axis=0)
            self._open_sequences += stop - start
            start = stop
            self._close_if_full()

    def _close_if_full(self) -> None:
        if self._open_sequences == self.sequences_per_batch:
            for total, on in zip(self.batches_on, self._open_on, strict=True):
                total += on
                on[:] = False
            self.n_batches += 1
            self._open_sequences = 0

    def merge(self, other: UnitCounts) -> None:
        """Add the counts of other sequences, measured with the same model.

        Raises
        ------
        ValueError
            other configuration, sequence length or batch size; or unfilled batches that do not
            fit into one.
        """
        if other.config != self.config or other.batch_tokens != self.batch_tokens:
            raise UserError("counts of another model or batch size cannot be merged")
        if not other.n_sequences:
            return
        together = self._open_sequences + other._open_sequences
        if self.n_sequences and together > self.sequences_per_batch:
            raise UserError(
                f"two unfilled batches hold {together} sequences, more than the "
                f"{self.sequences_per_batch} of a batch; cut the parts at whole batches"
            )
        self._set_length(other.sequence_length)
        for name in _PER_UNIT:
            for a, b in zip(getattr(self, name), getattr(other, name), strict=True):
                a += b
        for name in _PER_LAYER:
            array = getattr(self, name)
            array += getattr(other, name)
        self.n_sequences += other.n_sequences
        self.n_batches += other.n_batches
        for a, b in zip(self._open_on, other._open_on, strict=True):
            a |= b
        self._open_sequences = together
        self._close_if_full()

    def batch_share_on(self) -> list[np.ndarray]:
        """For each layer, the share of batches in which each unit was on, (F,).

        Without a full batch, everything counted so far is the batch.
        """
        if self.n_batches:
            return [on / self.n_batches for on in self.batches_on]
        return [on.astype(float) for on in self._open_on]

    @property
    def batch_size_used(self) -> int:
        """Tokens of the batches behind :meth:`batch_share_on`: less than asked in a small probe."""
        if self.n_batches:
            return self.sequences_per_batch * self.sequence_length
        return self._open_sequences * self.sequence_length

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return everything as named arrays, for ``counts/step_*.npz``."""
        arrays = {name: np.array(getattr(self, name), np.int64) for name in _NUMBERS}
        arrays |= {name: getattr(self, name) for name in _PER_LAYER}
        for name in (*_PER_UNIT, "_open_on"):
            for l, array in enumerate(getattr(self, name)):
                arrays[f"{name.lstrip('_')}.{l}"] = array
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], config: ModelConfig) -> UnitCounts:
        """Undo :meth:`to_arrays`; raises KeyError or ValueError where they are of another model."""
        counts = cls(config, int(arrays["batch_tokens"]))
        if arrays["sequence_length"]:
            counts._set_length(int(arrays["sequence_length"]))
        for name in _NUMBERS:
            setattr(counts, name, int(arrays[name]))
        for name in _PER_LAYER:
            setattr(counts, name, _like(arrays[name], getattr(counts, name), name))
        for name in (*_PER_UNIT, "_open_on"):
            per_layer = getattr(counts, name)
            for l, empty in enumerate(per_layer):
                key = f"{name.lstrip('_')}.{l}"
                per_layer[l] = _like(arrays[key], empty, key)
        return counts


_NUMBERS = ("batch_tokens", "sequence_length", "n_sequences", "n_batches", "_open_sequences")
_PER_UNIT = ("tokens_on", "sequences_on", "batches_on", "total")  # lists of L arrays, (F,)
_PER_LAYER = ("at_positions", "first_at", "percentiles", "sequences_used")


def _percentiles(in_order: np.ndarray) -> np.ndarray:
    """Every tenth of a percent of n sorted whole numbers, (1001,), in thousandths: exact.

    Between two of the numbers it is interpolated linearly, as ``np.percentile`` does.
    """
    rank, rest = np.divmod((len(in_order) - 1) * np.arange(TENTHS + 1), TENTHS)
    low = in_order[rank]
    return TENTHS * low + rest * (in_order[rank + (rest > 0)] - low)


def _like(array: np.ndarray, expected: np.ndarray, name: str) -> np.ndarray:
    if array.shape != expected.shape or array.dtype != expected.dtype:
        raise ValueError(f"{name} is of another model")
    return array
