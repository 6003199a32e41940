"""What training changes from step to step, saved to and restored from checkpoints."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from minirelu.config import Config
from minirelu.errors import UserError, command, shown
from minirelu.model.parameters import Parameters, init_params
from minirelu.runs.checkpoint import (
    checkpoint_steps,
    load_memory,
    load_params,
    load_slots,
    load_state,
    new_slots,
    save_checkpoint,
    thin_out,
    weight_bytes,
)
from minirelu.runs.files import explained
from minirelu.runs.run import Run
from minirelu.training.schedule import kept_steps, probe_steps


@dataclass
class State:
    """Everything that changes while training; ``step`` updates have been made.

    ``slots`` are what the optimizer remembers, by name (``m`` and ``v`` of Adam); ``memory`` is
    what interventions do.
    """

    step: int
    params: Parameters
    slots: dict[str, Parameters]
    memory: dict[str, np.ndarray] = field(default_factory=dict)


def save(run: Run, state: State, metrics: IO[bytes]) -> None:
    """Save a checkpoint, and thin out the earlier ones."""
    earlier = checkpoint_steps(run.checkpoints, resumable=True)
    left = ""
    if earlier:
        resume = command("train --resume", run.folder)
        left = f"the checkpoint of step {earlier[-1]} is intact, go on from it with {resume}"
    with explained(f"saving the checkpoint of step {state.step}", left):
        os.fsync(metrics.fileno())  # a checkpoint must not know of lines that the disk has lost
        save_checkpoint(
            run.checkpoints,
            state.step,
            state.params,
            state.slots,
            state.memory,
            config=run.settings.tables(),
            metrics_bytes=metrics.tell(),
        )
    with explained("removing checkpoints that are no longer needed"):
        thin_out(run.checkpoints, kept_weights(run.settings), run.settings.train.keep_optimizer_at)


def kept_weights(settings: Config) -> set[int]:
    """Steps whose weights stay on disk for good, within the budget of the settings."""
    budget = settings.train.snapshot_budget_gb * 1e9
    kept = kept_steps(probe_steps(settings.train), weight_bytes(settings.model), budget)
    return kept | set(settings.train.keep_optimizer_at)


def load(run: Run, metrics: IO[bytes] | None = None) -> State:
    """Restore the last checkpoint that can be resumed, or draw initial weights.

    The lines of ``metrics`` that came after it are cut off: those steps are made again.
    """
    config = run.config
    steps = checkpoint_steps(run.checkpoints, resumable=True)
    if steps:
        saved = load_state(run.checkpoints, steps[-1])
        refuse_changed(run, saved)
        params = load_params(run.checkpoints, steps[-1], config)
        slots = load_slots(run.checkpoints, steps[-1], new_slots(run.settings))
        memory = load_memory(run.checkpoints, steps[-1])
        state, metrics_bytes = State(steps[-1], params, slots, memory), saved["metrics_bytes"]
    elif run.steps:
        raise UserError(
            f"{shown(run.folder)} cannot be resumed: no checkpoint has its optimizer state"
        )
    else:
        params = init_params(config, run.settings.train.seed)
        state, metrics_bytes = State(0, params, new_slots(run.settings)), 0
    if metrics is not None:
        if metrics.seek(0, os.SEEK_END) < metrics_bytes:
            raise UserError(
                f"{shown(run.folder / 'metrics.jsonl')} is damaged: it is shorter than when the "
                f"checkpoint of step {state.step} was made"
            )
        metrics.truncate(metrics_bytes)
        metrics.seek(metrics_bytes)
    return state


def refuse_changed(run: Run, saved: Mapping[str, Any]) -> None:
    """Raise, naming the settings, if they are not those that the checkpoint was made with."""
    where = f"{shown(run.folder)}: "
    before = Config.from_tables(saved["config"], where)
    changed = before.differences(run.settings)
    if changed:
        raise UserError(
            f"{where}the settings have changed since the checkpoint was made ({'; '.join(changed)})"
            "; put them back, or start a new run"
        )
