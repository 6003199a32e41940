"""Two texts that share nothing: one to rank units on, and one to measure smaller models on."""

from __future__ import annotations

import numpy as np

from minirelu.runs.run import Run
from minirelu.text.batches import batch, make_probe


def trained_on(run: Run, tokens: int) -> np.ndarray:
    """Sequences (S, T + 1) of the text that a run was trained on, evenly spread over it."""
    return make_probe(run.train_tokens, tokens, run.config.n_ctx)


def next_batch(run: Run, step: int) -> np.ndarray:
    """The batch that would come after a step, (B, T + 1): to time steps on."""
    train = run.settings.train
    return batch(run.train_tokens, step + 1, train.batch_size, run.config.n_ctx, train.batch_seed)


def halves(sequences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split a text in two, taking sequences in turn, so that both are from all over it.

    >>> [part.ravel().tolist() for part in halves(np.arange(5)[:, None])]
    [[0, 2, 4], [1, 3]]
    """
    return sequences[::2], sequences[1::2]
