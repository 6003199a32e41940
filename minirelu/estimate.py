"""What a training will need: parameters, memory by purpose, arithmetic, time.

Memory is added up from the shapes of what is held. Time is measured on this machine, with small
models whose step is a few times cheaper, and scaled to the real one.
"""

from __future__ import annotations

import dataclasses
import math
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist

import numpy as np

from minirelu.compute import Workspace, global_norm, loss_and_grads, step_memory, update
from minirelu.config import Config, ModelConfig, TrainConfig
from minirelu.errors import UserError
from minirelu.model.parameters import Parameters, init_params, n_params
from minirelu.training.optimizers import OPTIMIZERS

# Python, NumPy, SciPy's BLAS, Numba with its compiler, and the kernels.
_PROGRAM_BYTES = 270_000_000
# Models that are timed have at most this many hidden units and tokens.
_TIMED_WIDTH, _TIMED_TOKENS = 32768, 2048
# How much of a corpus is read to time it.
_TIMED_MB = 1.0
# Seconds on two cores: the imports, compiled kernels from the disk, and the timing of steps; all
# figures of a report, and what each layer adds to them.
_STARTING, _DRAWING, _DRAWING_A_LAYER = 3.0, 4.0, 0.4


def memory(settings: Config) -> dict[str, int]:
    """Bytes that training holds at its peak, by purpose.

    Hidden units are counted as if all were on. Once few are, most of their memory is not touched
    any more, though it stays with the process.

    Parameters
    ----------
    settings : Config

    Returns
    -------
    dict of int
        in bytes, in the order of the training step.

    Examples
    --------
    >>> parts = memory(Config.build("plain"))
    >>> list(parts)[:3], parts["weights"]
    (['weights', 'gradients', 'adamw'], 16461824)
    """
    model, train = settings.model, settings.train
    P = n_params(model)
    N = train.batch_size // train.micro_batches * model.n_ctx
    optimizer = OPTIMIZERS[train.optimizer]
    trained = {
        "weights": P,
        "gradients": P * (2 if train.micro_batches > 1 else 1),
        train.optimizer: len(optimizer.slots) * P,
    }
    parts = trained | step_memory(model, N, train.compute)
    return {name: 4 * numbers for name, numbers in parts.items()} | {"program": _PROGRAM_BYTES}


def available_memory() -> int | None:
    """Bytes of memory this machine, or the container around us, has; None if unknown."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows lacks this call
        return None
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        return min(total, int(limit)) if limit.isdecimal() else total
    except (OSError, ValueError):
        return total


def refuse_too_large(settings: Config) -> None:
    """Raise, with advice, if training cannot fit in this machine's memory."""
    available, parts = available_memory(), memory(settings)
    needed = sum(parts.values())
    if available is None or needed <= available:
        return
    train = settings.train
    advice = "choose a smaller d_mlp, d_model or n_layers"
    for micro_batches in range(train.micro_batches + 1, train.batch_size + 1):
        if train.batch_size % micro_batches:
            continue
        smaller = dataclasses.replace(train, micro_batches=micro_batches)
        if sum(memory(dataclasses.replace(settings, train=smaller)).values()) <= available:
            advice = f"--micro-batches {micro_batches} fits, and gives the same gradients"
            break
    largest = max(parts, key=lambda name: parts[name])
    raise UserError(
        f"training this model of {n_params(settings.model):,} parameters needs "
        f"{needed / 1e9:.1f} GB ({largest}: {parts[largest] / 1e9:.1f} GB) and this machine has "
        f"{available / 1e9:.1f} GB; {advice}"
    )


def flops(settings: Config, share_on: float = 1.0) -> float:
    """Additions and multiplications of one step's matrix products, forward and backward.

    Parameters
    ----------
    settings : Config
    share_on : float
        share of the hidden units that are on: five of the MLP's six products shrink with it.

    Examples
    --------
    >>> f"{flops(Config.build('plain')) / 1e9:.0f} G"
    '53 G'
    >>> f"{flops(Config.build('plain'), share_on=0.05) / 1e9:.0f} G"
    '22 G'
    """
    model, train = settings.model, settings.train
    N, C, T = train.batch_size * model.n_ctx, model.d_model, model.n_ctx
    mlp = sum(2 * N * C * F * (1 + 5 * share_on) for F in model.mlp_widths)
    projections = 3 * 4 * 2 * N * C * C * model.n_layers
    scores = (2 + 5) * 2 * N * C * (T / 2) * model.n_layers  # causal: half of them
    unembedding = 3 * 2 * N * C * model.d_vocab
    return mlp + projections + scores + unembedding


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Seconds of one step.

    ``at_first``: about half of the units on, as after initialisation. ``once_sparse``: layer 0
    still so, and 5 % on in the others, as in runs of this program after some hundred steps.
    """

    at_first: float
    once_sparse: float


def step_time(settings: Config) -> StepTime:
    """Measure small steps on this machine, and scale them; takes a few seconds.

    A step with L layers costs what one with one layer does, and L - 1 times the difference that a
    second one makes, all of it times the tokens; Adam's share goes by the parameter.

    Parameters
    ----------
    settings : Config

    Returns
    -------
    StepTime
    """
    model, train = settings.model, settings.train
    timed = min(train.batch_size // train.micro_batches, max(1, _TIMED_TOKENS // model.n_ctx))
    mean_width = sum(model.mlp_widths) / model.n_layers
    width = max(1, round(min(mean_width, _TIMED_WIDTH)))

    def small(n_layers: int, share_on: float) -> Callable[[], None]:
        config = dataclasses.replace(model, n_layers=n_layers, d_mlp=width)
        return _small_step(config, timed, train.compute, share_on)

    one, two, one_sparse = median_seconds([small(1, 0.5), small(2, 0.5), small(1, 0.05)])
    layer = max(0.0, two - one)
    saved = max(0.0, one - one_sparse)
    if mean_width > width:  # what a wider layer adds is nearly all that it costs
        layer, saved = layer * mean_width / width, saved * mean_width / width
    at_first = max(0.0, 2 * one - two) + model.n_layers * layer
    once_sparse = at_first - (model.n_layers - 1) * min(saved, layer)

    tokens = train.batch_size / timed
    update = _update_seconds(n_params(model), train) * (1 if train.micro_batches == 1 else 1.5)
    return StepTime(tokens * at_first + update, tokens * once_sparse + update)


def run_seconds(settings: Config, steps: int, first_step: int = 0) -> tuple[float, StepTime]:
    """Expected seconds of this many steps after ``first_step``, probes included, and of one step.

    The first 150 steps are taken as dense and the rest as sparse, which is when it happened in
    runs of the presets; how soon it does depends on the learning rate.
    """
    each = step_time(settings)
    dense = max(0, min(steps, 150 - first_step))
    seconds = dense * each.at_first + (steps - dense) * each.once_sparse
    return seconds * 1.1, each  # probes and checkpoints


def command_seconds(settings: Config) -> tuple[dict[str, float], StepTime]:
    """Expected seconds of ``minirelu train``, by what they are for, and those of one step.

    Parameters
    ----------
    settings : Config

    Returns
    -------
    dict of float
        ``starting``, ``reading`` (the tokenizer included), ``training``, ``drawing`` (the report).
    StepTime
    """
    training, each = run_seconds(settings, settings.train.steps)
    parts = {"starting": _STARTING, "reading": reading_seconds(settings), "training": training}
    return parts | {"drawing": drawing_seconds(settings, each)}, each


def reading_seconds(settings: Config) -> float:
    """Time reading, learning the tokenizer and encoding on a part of the corpus, and scale it."""
    from minirelu.text.corpus import open_corpus
    from minirelu.text.tokenizer import Tokenizer

    text = settings.text
    corpus = open_corpus(text)
    limit_mb = min(text.limit_mb or _TIMED_MB, _TIMED_MB)
    part = open_corpus(dataclasses.replace(text, limit_mb=limit_mb))
    start = time.perf_counter()
    tokenizer = Tokenizer.for_corpus(part, text, settings.model.d_vocab)
    for document in (*part.train, *part.val):
        for piece in document.chunks():
            tokenizer.encode(piece)
    return (time.perf_counter() - start) * corpus.size / part.size


def drawing_seconds(settings: Config, each: StepTime) -> float:
    """Expected seconds of the report: its figures, and the probe by the reference."""
    model, train = settings.model, settings.train
    probe = train.probe_tokens / (train.batch_size * model.n_ctx) * each.at_first
    return _DRAWING + _DRAWING_A_LAYER * model.n_layers + 3 * probe


def _small_step(
    model: ModelConfig, sequences: int, compute: str, share_on: float
) -> Callable[[], None]:
    """Forward and backward of a small model with about that share of its units on."""
    model = dataclasses.replace(model, bias=True)
    params, workspace, grads = init_params(model), Workspace(), Parameters(model)
    for l in range(model.n_layers):
        # the MLP's input has variance 1, so the pre-activations have that of a row of W_in
        W_in = params[f"blocks.{l}.mlp.W_in"]
        spread = math.sqrt(float((W_in * W_in).sum()) / len(W_in))
        params[f"blocks.{l}.mlp.b_in"][:] = spread * NormalDist().inv_cdf(share_on)
    tokens = np.random.default_rng(0).integers(0, model.d_vocab, (sequences, model.n_ctx))

    def step() -> None:
        loss_and_grads(params, tokens, tokens, model, compute, workspace, grads)

    return step


def median_seconds(steps: list[Callable[[], None]], rounds: int = 5) -> list[float]:
    """Median time of each, taken in turn, so that a slow moment falls on all of them."""
    times = []
    for _ in range(rounds + 1):  # the first one compiles
        times.append([_seconds_of(step) for step in steps])
    return [statistics.median(column) for column in zip(*times[1:], strict=True)]


def _seconds_of(step: Callable[[], None]) -> float:
    """Of one step; short ones are repeated, so that they come in a row as in training."""
    start, n = time.perf_counter(), 0
    while n == 0 or time.perf_counter() - start < 0.03:
        step()
        n += 1
    return (time.perf_counter() - start) / n


def _update_seconds(n: int, settings: TrainConfig) -> float:
    """Measure norm and update over a part of that many parameters, and scale it."""
    part = Parameters(ModelConfig(1, 1, 1, min(n, 2_000_000), 1, 1))
    grads = Parameters(part.config)
    grads.flat[:] = 1
    slots = {name: Parameters(part.config) for name in OPTIMIZERS[settings.optimizer].slots}

    def step() -> None:
        norm = global_norm(grads, settings.compute)
        update(part, grads, slots, 1, 1e-3, settings, norm)

    return median_seconds([step])[0] * n / part.flat.size
