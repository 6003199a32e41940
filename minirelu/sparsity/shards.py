"""Measuring over more text than one process should read: shard by shard, on any workers."""

from __future__ import annotations

import itertools
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor

import numpy as np

from minirelu.compute import Workspace
from minirelu.config import ModelConfig
from minirelu.errors import UserError
from minirelu.model.parameters import Parameters
from minirelu.sparsity.counts import UnitCounts
from minirelu.sparsity.measure import measure
from minirelu.workers import plain_failures

Load = Callable[[], tuple[Parameters, ModelConfig]]

# Tokens of a shard: whole batches of UnitCounts, and long enough that loading the weights, once
# in each worker, and sending the counts back does not matter.
SHARD_TOKENS = 4 * 8192


def measure_shards(
    load: Load,
    sequences: np.ndarray | Iterable[np.ndarray],
    executor: Executor | None = None,
    ahead: int = 16,
    compute: str = "auto",
    on_shard: Callable[[int], None] = lambda tokens: None,
) -> tuple[UnitCounts, float]:
    """Count which hidden units fire, and average the loss, over any amount of text.

    The text is cut into shards by its length alone, and their counts are merged in its order. So
    integers and loss are the same bits in this process, in others and on a cluster, whatever
    their number (on processors of one kind: others may round differently).

    Parameters
    ----------
    load : callable
        returns the weights and their configuration. It goes to the workers, which call it once
        each, so it must be importable: ``functools.partial(load_weights, folder, step)``.
    sequences : int ndarray, (S, T + 1), or an iterable of such
        inputs and, one further, targets; of an iterable, only the shards in work are held.
    executor : concurrent.futures.Executor, optional
        such as :func:`minirelu.workers.process_pool` or ``cluster``; None: this process.
    ahead : int
        shards that are with the workers at the same time; twice their number keeps them busy.
    compute : {"auto", "dense", "sparse", "reference"}
        see :func:`minirelu.loss_and_grads`.
    on_shard : callable
        called with the tokens of every shard that has been measured: for a progress bar.

    Returns
    -------
    counts : UnitCounts
    loss : float
        mean over all tokens, in nats.

    Raises
    ------
    UserError
        no sequences, or of the wrong shape, type or range; workers that died.

    Examples
    --------
    >>> import minirelu as mr
    >>> config = mr.ModelConfig(n_layers=1, n_heads=2, d_model=4, d_mlp=8, n_ctx=6, d_vocab=10)
    >>> text = np.arange(35).reshape(5, 7) % 10
    >>> counts, loss = measure_shards(lambda: (mr.init_params(config), config), text)
    >>> counts.n_sequences, counts.n_tokens
    (5, 30)
    """
    shards = cut(sequences)
    parts: Iterator[tuple[UnitCounts, float]]
    if executor is None:
        params, config = load()
        workspace = Workspace()
        parts = (measure(params, shard, config, compute, workspace) for shard in shards)
    else:
        call = uuid.uuid4().hex
        parts = _in_order(executor, ahead, ((call, load, shard, compute) for shard in shards))
    counts, nats = None, 0.0
    for part, loss in parts:
        nats += loss * part.n_tokens
        on_shard(part.n_tokens)
        if counts is None:
            counts = part
        else:
            counts.merge(part)
    if counts is None:
        raise UserError("there is nothing to measure: no whole sequence")
    return counts, nats / counts.n_tokens


def cut(sequences: np.ndarray | Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Cut sequences into shards of whole batches; the last one is what is left.

    >>> blocks = (np.zeros((n, 8193), int) for n in (1, 20, 0, 14))
    >>> [len(shard) for shard in cut(blocks)]
    [4, 4, 4, 4, 4, 4, 4, 4, 3]
    """
    blocks = [sequences] if isinstance(sequences, np.ndarray) else sequences
    held: list[np.ndarray] = []
    for block in blocks:
        if block.ndim != 2 or block.shape[1] < 2:
            raise UserError(f"sequences: shape {block.shape}; must be (S, T + 1)")
        size = _sequences_per_shard(block.shape[1] - 1)
        while len(block):
            room = size - sum(map(len, held))
            held.append(block[:room])
            block = block[room:]
            if sum(map(len, held)) == size:
                yield np.concatenate(held)
                held = []
    if held:
        yield np.concatenate(held)


def _sequences_per_shard(T: int) -> int:
    """Return a multiple of the sequences that make a batch of :class:`UnitCounts`."""
    per_batch = max(1, 8192 // T)
    return per_batch * max(1, SHARD_TOKENS // (per_batch * T))


def _in_order(
    executor: Executor, ahead: int, work: Iterable[tuple]
) -> Iterator[tuple[UnitCounts, float]]:
    """Have shards measured, ``ahead`` at a time, and yield the results in their order."""
    work = iter(work)
    running = deque(executor.submit(_measure_shard, *w) for w in itertools.islice(work, ahead))
    try:
        while running:
            with plain_failures():
                done = running.popleft().result()
            running.extend(executor.submit(_measure_shard, *w) for w in itertools.islice(work, 1))
            yield done
    finally:  # after an error, shards that have not begun are cancelled
        for future in running:
            future.cancel()


# The weights of the call that this process is working for, by the call's name.
_held: dict[str, tuple[Parameters, ModelConfig]] = {}


def _measure_shard(
    call: str, load: Load, shard: np.ndarray, compute: str
) -> tuple[UnitCounts, float]:
    """Measure one shard; the weights are loaded at a call's first one."""
    model = _held.get(call)
    if model is None:
        model = load()
        _held.clear()
        _held[call] = model
    params, config = model
    return measure(params, shard, config, compute)
