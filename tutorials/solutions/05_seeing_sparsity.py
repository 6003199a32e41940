"""Worked solutions of tutorial 5."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from checks_05 import check_fires_on, check_per_batch, check_unused

import minirelu as mr
from minirelu.sparsity.reuse import aggregated_sparsity


# Exercise 1. One row for each batch: (batches, sequences of a batch * T, F).
def per_batch_of(o: np.ndarray, batch_tokens: int) -> float:
    """Of one layer, ``o`` (B, T, F): mean over batches of the share of units on in them."""
    B, T, F = o.shape
    n = batch_tokens // T
    batches = o[: B // n * n].reshape(B // n, n * T, F)
    return batches.any(axis=1).mean()


assert check_per_batch(per_batch_of)


# Exercise 2. Once on, used from there on: an "or" over the positions so far.
def unused_after(o: np.ndarray) -> np.ndarray:
    """Of one layer, ``o`` (B, T, F): (T,), share of units not used in the first t tokens."""
    used = np.logical_or.accumulate(o, axis=1)  # (B, T, F)
    return 1 - used.mean(axis=(0, 2))


assert check_unused(unused_after)


# Exercise 3. bincount twice: all occurrences, and those with the unit on. Where a token does not
# occur, both are 0, and dividing by 1 in place of 0 gives the 0 that was asked for.
def fires_on(o_j: np.ndarray, tokens: np.ndarray, d_vocab: int) -> np.ndarray:
    """(B, T) bool and (B, T) int to (V,): share of each token's occurrences with the unit on."""
    occurrences = np.bincount(tokens.ravel(), minlength=d_vocab)
    with_unit_on = np.bincount(tokens[o_j], minlength=d_vocab)
    return with_unit_on / np.maximum(occurrences, 1)


assert check_fires_on(fires_on)

# The library's measures of the same name agree, on a model fresh from initialisation.
config = mr.ModelConfig(n_layers=1, n_heads=2, d_model=16, d_mlp=64, n_ctx=16, d_vocab=50)
tokens = np.random.default_rng(0).integers(0, 50, (8, 16))
name = "blocks.0.mlp.hook_post"
_, acts = mr.forward(mr.init_params(config), tokens, config, keep=[name])
counts = mr.UnitCounts(config, batch_tokens=32)
counts.update(acts)
on = acts[name] > 0
np.testing.assert_allclose(per_batch_of(on, 32), mr.usage(counts).per_batch[0])
np.testing.assert_allclose(unused_after(on), aggregated_sparsity(counts).unused[0])
