"""Running text through a model only to watch it: who fires, and how well it predicts."""

from __future__ import annotations

import numpy as np

from minirelu.compute import Workspace, by_reference, evaluate
from minirelu.config import ModelConfig
from minirelu.model.parameters import Parameters
from minirelu.model.transformer import check_tokens
from minirelu.sparsity.counts import UnitCounts

_AT_ONCE_BYTES = 1 << 28  # of hidden units and logits held at a time


def measure(
    params: Parameters,
    sequences: np.ndarray,
    config: ModelConfig,
    compute: str = "auto",
    workspace: Workspace | None = None,
    at_once: int | None = None,
) -> tuple[UnitCounts, float]:
    """Count which hidden units fire, and average the loss.

    The kernels count what they list anyway, so watching costs little more than the forward pass.

    Parameters
    ----------
    params : Parameters
    sequences : int ndarray, (S, T + 1)
        inputs and, one further, targets.
    config : ModelConfig
    compute : {"auto", "dense", "sparse", "reference"}
        see :func:`minirelu.loss_and_grads`.
    workspace : Workspace, optional
    at_once : int, optional
        sequences in memory at a time; without it, a batch of 8192 tokens or the part of one that
        256 MB hold.

    Returns
    -------
    counts : UnitCounts
    loss : float
        mean over the S * T tokens, in nats.

    Raises
    ------
    ValueError
        sequences of the wrong shape, type or range.

    Examples
    --------
    >>> import minirelu as mr
    >>> config = mr.ModelConfig(n_layers=1, n_heads=2, d_model=4, d_mlp=8, n_ctx=6, d_vocab=10)
    >>> counts, loss = measure(mr.init_params(config), np.array([[1, 2, 3, 4]]), config)
    >>> counts.n_tokens
    3
    """
    tokens = check_tokens(sequences[:, :-1], config, "tokens")
    targets = check_tokens(sequences[:, 1:], config, "targets")
    S, T = tokens.shape
    workspace = workspace or Workspace()
    counts, nats = UnitCounts(config), 0.0
    numbers_each = T * (max(config.mlp_widths) + config.d_vocab)
    if by_reference(compute, config):  # it holds all layers at once, and the pattern
        numbers_each = T * (sum(config.mlp_widths) + config.d_vocab + config.n_heads * T)
    if at_once is None:
        at_once = max(1, _AT_ONCE_BYTES // (params.dtype.itemsize * numbers_each))
        # A part of a batch: so texts that are cut at whole batches are computed in the same
        # pieces, and give the same numbers to the last bit.
        whole = max(1, counts.batch_tokens // T)
        at_once = next(n for n in range(min(at_once, whole), 0, -1) if whole % n == 0)

    for i in range(0, S, at_once):
        part = slice(i, i + at_once)
        losses, activity = evaluate(params, tokens[part], targets[part], config, compute, workspace)
        nats += float(losses.sum(dtype=np.float64))
        counts.add(activity, T)
    return counts, nats / targets.size
