"""What a smaller model saves, measured: seconds of a step and of a forward pass, size on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minirelu import compute
from minirelu.compute import Workspace, evaluate
from minirelu.config import TrainConfig
from minirelu.estimate import median_seconds
from minirelu.model.parameters import Parameters
from minirelu.pruning.texts import next_batch
from minirelu.runs.checkpoint import MODEL, checkpoint_folder
from minirelu.runs.run import Run
from minirelu.training.optimizers import OPTIMIZERS


def step_seconds(
    models: Sequence[Parameters], sequences: np.ndarray, settings: TrainConfig, rounds: int = 5
) -> list[float]:
    """Median seconds of a training step of each model, on the same text, taken in turn.

    Weights stay as they are: the update has a learning rate and a decay of 0. So a model is
    measured as sparse as it is.

    Parameters
    ----------
    models : sequence of Parameters
    sequences : int ndarray, (B, T + 1)
        one batch.
    settings : TrainConfig
        ``optimizer`` and ``compute`` are obeyed.
    rounds : int
    """
    return median_seconds([_training_step(p, sequences, settings) for p in models], rounds)


def forward_seconds(
    models: Sequence[Parameters], sequences: np.ndarray, settings: TrainConfig, rounds: int = 5
) -> list[float]:
    """Median seconds in which each model reads the text, without a backward, taken in turn."""
    tokens, targets = sequences[:, :-1], sequences[:, 1:]

    def reading(params: Parameters) -> Callable[[], None]:
        workspace = Workspace()

        def read() -> None:
            evaluate(params, tokens, targets, params.config, settings.compute, workspace)

        return read

    return median_seconds([reading(params) for params in models], rounds)


def costs(parent: Run, step: int, pruned: Run) -> list[dict[str, Any]]:
    """Measure what a run costs before and after its units were removed.

    Returns
    -------
    list of dict
        ``what``, ``before``, ``now``: seconds of a training step and of reading a batch, with the
        weights of ``step`` and the pruned ones; parameters, and size on disk.
    """
    train = parent.settings.train
    text = next_batch(parent, step)
    models = [parent.params(step), pruned.params()]
    rows = {
        "parameters": [float(p.flat.size) for p in models],
        "ms a training step": [1000 * s for s in step_seconds(models, text, train)],
        "ms to read a batch": [1000 * s for s in forward_seconds(models, text, train)],
        "MB of weights on disk": [
            (checkpoint_folder(run.checkpoints, at) / MODEL).stat().st_size / 1e6
            for run, at in ((parent, step), (pruned, pruned.steps[-1]))
        ],
    }
    return [{"what": what, "before": a, "now": b} for what, (a, b) in rows.items()]


def _training_step(
    params: Parameters, sequences: np.ndarray, settings: TrainConfig
) -> Callable[[], None]:
    config = params.config
    workspace, grads = Workspace(), Parameters(config, params.dtype)
    slots = {name: Parameters(config) for name in OPTIMIZERS[settings.optimizer].slots}

    def step() -> None:
        compute.loss_and_grads(
            params, sequences[:, :-1], sequences[:, 1:], config, settings.compute, workspace, grads
        )
        norm = compute.global_norm(grads, settings.compute)
        compute.update(params, grads, slots, 1, 0.0, settings, norm)

    return step
