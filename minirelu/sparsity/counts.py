"""Streaming counts of which hidden units fire, from which every measure is computed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from minirelu.config import ModelConfig
from minirelu.errors import UserError
from minirelu.model.activations import mlp_names


class UnitCounts:
    """How often each hidden unit was on (``hook_post > 0``), per token, sequence and batch.

    Every number is an exact integer, so parts measured separately can be merged, and the order
    in which sequences arrive does not matter. Batches are the one thing that depends on it: they
    are filled with sequences as they come, 8192 tokens each (``batch_tokens``; rounded down to
    whole sequences), and the last, unfilled one counts only while there is no full one. Two parts
    can be merged as long as their unfilled batches fit into one: cut parts at whole batches.

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
    in_sequence : ndarray, (n_sequences, L, T + 1) int32
        for each sequence and layer, how many units were on at exactly k of its T positions.

    Examples
    --------
    >>> import minirelu as mr
    >>> config = mr.ModelConfig(n_layers=1, n_heads=1, d_model=2, d_mlp=3, n_ctx=4, d_vocab=5)
    >>> counts = mr.UnitCounts(config)
    >>> post = np.array([[[1.0, 0.0, 0.0], [1.0, 0.5, 0.0]]])  # one sequence, two tokens
    >>> counts.update({"blocks.0.mlp.hook_post": post})
    >>> counts.tokens_on[0], counts.in_sequence[0, 0]
    (array([2, 1, 0]), array([1, 1, 1], dtype=int32))
    """

    def __init__(self, config: ModelConfig, batch_tokens: int = 8192) -> None:
        self.config = config
        self.batch_tokens = batch_tokens
        self.sequence_length = 0
        self.n_sequences = 0
        self.n_batches = 0
        self.tokens_on = [np.zeros(F, np.int64) for F in config.mlp_widths]
        self.sequences_on = [np.zeros(F, np.int64) for F in config.mlp_widths]
        self.batches_on = [np.zeros(F, np.int64) for F in config.mlp_widths]
        self._histograms: list[np.ndarray] = []  # (some sequences, L, T + 1) each
        # The batch being filled: how many sequences it has, and which units were on in it.
        self._open_sequences = 0
        self._open_on = [np.zeros(F, bool) for F in config.mlp_widths]

    @property
    def n_tokens(self) -> int:
        """Tokens counted so far."""
        return self.n_sequences * self.sequence_length

    @property
    def in_sequence(self) -> np.ndarray:
        """See the class."""
        empty = np.zeros((0, self.config.n_layers, self.sequence_length + 1), np.int32)
        return np.concatenate([empty, *self._histograms])

    @property
    def sequences_per_batch(self) -> int:
        """Whole sequences that make a batch; 1 at least."""
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
        T = posts[0].shape[1]
        self.add_positions([(post > 0).sum(axis=1, dtype=np.int32) for post in posts], T)

    def add_positions(self, positions_on: list[np.ndarray], T: int) -> None:
        """Count whole sequences of which it is known how often each unit was on.

        Parameters
        ----------
        positions_on : list of L int arrays, (B, F)
            for each sequence and unit, at how many of its positions the unit was on.
        T : int
            length of the sequences.

        Raises
        ------
        ValueError
            another T than before.
        """
        self._check_length(T)
        B = len(positions_on[0])
        histogram = np.empty((B, len(positions_on), T + 1), np.int32)
        for l, k in enumerate(positions_on):
            self.tokens_on[l] += k.sum(axis=0)
            self.sequences_on[l] += (k > 0).sum(axis=0)
            for b in range(B):
                histogram[b, l] = np.bincount(k[b], minlength=T + 1)
        self._histograms.append(histogram)
        self.n_sequences += B
        self._fill_batches([k > 0 for k in positions_on])

    def _check_length(self, T: int) -> None:
        if self.sequence_length not in (0, T):
            raise UserError(
                f"sequences of {T} tokens among sequences of {self.sequence_length}: count them "
                "separately, their frequencies cannot be compared"
            )
        self.sequence_length = T

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
        self._check_length(other.sequence_length)
        for mine, others in (
            (self.tokens_on, other.tokens_on),
            (self.sequences_on, other.sequences_on),
            (self.batches_on, other.batches_on),
        ):
            for a, b in zip(mine, others, strict=True):
                a += b
        self._histograms += other._histograms
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
        arrays = {
            "n_sequences": np.int64(self.n_sequences),
            "n_batches": np.int64(self.n_batches),
            "sequence_length": np.int64(self.sequence_length),
            "batch_tokens": np.int64(self.batch_tokens),
            "open_sequences": np.int64(self._open_sequences),
            "in_sequence": self.in_sequence,
        }
        for l in range(self.config.n_layers):
            arrays[f"tokens_on.{l}"] = self.tokens_on[l]
            arrays[f"sequences_on.{l}"] = self.sequences_on[l]
            arrays[f"batches_on.{l}"] = self.batches_on[l]
            arrays[f"open_on.{l}"] = self._open_on[l]
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], config: ModelConfig) -> UnitCounts:
        """Undo :meth:`to_arrays`; raises KeyError or ValueError where they are of another model."""
        counts = cls(config, int(arrays["batch_tokens"]))
        counts.n_sequences = int(arrays["n_sequences"])
        counts.n_batches = int(arrays["n_batches"])
        counts.sequence_length = int(arrays["sequence_length"])
        counts._open_sequences = int(arrays["open_sequences"])
        counts._histograms = [arrays["in_sequence"]] if counts.n_sequences else []
        shape = (counts.n_sequences, config.n_layers, counts.sequence_length + 1)
        if arrays["in_sequence"].shape != shape:
            raise ValueError(f"in_sequence has shape {arrays['in_sequence'].shape}, not {shape}")
        for name, per_layer in (
            ("tokens_on", counts.tokens_on),
            ("sequences_on", counts.sequences_on),
            ("batches_on", counts.batches_on),
            ("open_on", counts._open_on),
        ):
            for l, empty in enumerate(per_layer):
                array = arrays[f"{name}.{l}"]
                if array.shape != empty.shape or array.dtype != empty.dtype:
                    raise ValueError(f"{name}.{l} is of another model")
                per_layer[l] = array
        return counts
