"""The training loop: batch, loss and gradients, clip, Adam; and a probe now and then."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

import numpy as np

from minirelu import compute
from minirelu.compute import Workspace
from minirelu.config import ModelConfig, TrainConfig
from minirelu.errors import shown
from minirelu.model.parameters import Parameters
from minirelu.runs.files import explained, locked, remove_leftovers
from minirelu.runs.formats import metrics_stamp, write_counts
from minirelu.runs.history import SLOW_EVERY, write_history
from minirelu.runs.run import Run
from minirelu.source import source_digest
from minirelu.sparsity.measure import measure
from minirelu.sparsity.measures import probe_measures, summary
from minirelu.sparsity.unit_states import UnitStates, unit_states
from minirelu.text.batches import batch
from minirelu.training.guard import not_finite
from minirelu.training.interventions import parse_interventions
from minirelu.training.schedule import history_steps, learning_rate, probe_steps
from minirelu.training.state import State, load, save
from minirelu.training.update import Update

Record = dict[str, Any]
# What may be done around an update, see ``minirelu.training.interventions``; and a user's own.
Around = Callable[[Update], Any]
OnStep = Callable[[State, Parameters, int], Any]
SAVE_EVERY_SECONDS = 300  # so that a crash of a slow run costs no more than this


def train(
    run: Run,
    on_record: Callable[[Record], None] = lambda record: None,
    should_stop: Callable[[], bool] = lambda: False,
    on_step: OnStep | None = None,
    unchecked: bool = False,
) -> bool:
    """Train a run from where it stands (its last checkpoint, or step 0) to its last step.

    Weights, metrics and counts are the same bits whether or not the training was interrupted in
    between, on the same machine with the same versions and threads; only ``tokens_per_second``
    differs.

    Parameters
    ----------
    run : Run
    on_record : callable
        called with the record of every step and probe, as it goes to ``metrics.jsonl``.
    should_stop : callable
        asked after every step; if it says True, a checkpoint is saved and training ends.
    on_step : callable, optional
        your own intervention: called with (state, grads, step) before every update, after
        those of the settings; it may change the gradients. If it is a generator function, what
        follows its ``yield`` comes after the update. It is not stored with the run: for the same
        bits after an interruption, give it again.
    unchecked : bool
        go on with the kernels even where they and the reference no longer agree.

    Returns
    -------
    bool
        True if the last step was reached.

    Raises
    ------
    UserError
        a damaged checkpoint, changed settings, a full disk, a loss or gradient that is not finite;
        kernels and reference that differ, since one of them was changed.
    """
    settings = run.settings
    if settings.train.compute == "auto" and not unchecked:
        compute.refuse_disagreement(run.config)
    probes = set(probe_steps(settings.train))
    history = history_steps(settings.train)
    interventions = parse_interventions(settings.train.intervene)
    to_save = probes | set(settings.train.keep_optimizer_at)
    last_saved = time.monotonic()
    workspace = Workspace()

    # NumPy need not warn of what the guard in train_step reports, with step and tensor
    with (
        np.errstate(over="ignore", invalid="ignore"),
        open(run.folder / "metrics.jsonl", "ab", buffering=0) as metrics,
        locked(metrics, f"{shown(run.folder)} is being trained by another process"),
    ):
        remove_leftovers(run.folder)
        state = load(run, metrics)
        if not metrics.tell():  # a new file, or one begun without a checkpoint: all is made again
            write_record(metrics, metrics_stamp())

        def note(record: Record) -> None:
            write_record(metrics, record)
            on_record(record)

        if run.code[-1][1] != source_digest():  # it was changed since the run was made
            write_record(metrics, {"kind": "code", "step": state.step, "code": source_digest()})
        if state.step == 0 and not run.steps:
            note(probe(run, state, workspace))
            if 0 in history:
                record_history(run, state, workspace)
            save(run, state, metrics)
        while state.step < settings.train.steps:
            step = state.step + 1
            acting: list[Around] = [i.around for i in interventions if i.acts_at(step)]
            if on_step:
                acting.append(lambda update: on_step(update.state, update.grads, update.step))
            note(train_step(run, state, workspace, acting))
            if state.step in probes:
                note(probe(run, state, workspace))
            if state.step in history:
                record_history(run, state, workspace)
            stopping = state.step < settings.train.steps and should_stop()
            overdue = time.monotonic() - last_saved > SAVE_EVERY_SECONDS
            if state.step in to_save or stopping or overdue:
                save(run, state, metrics)
                last_saved = time.monotonic()
            if stopping:
                return False
    return True


def train_step(
    run: Run, state: State, workspace: Workspace, acting: Sequence[Around] = ()
) -> Record:
    """Make one update, with interventions around it, and return its record."""
    config, settings = run.config, run.settings.train
    start = time.perf_counter()
    step = state.step + 1
    lr = learning_rate(step, settings)
    sequences = batch(
        run.train_tokens, settings.batch_step(step), settings.batch_size, config.n_ctx,
        settings.batch_seed,
    )  # fmt: skip
    loss, penalty, grads = accumulated_grads(state.params, sequences, config, settings, workspace)

    def watch() -> list[UnitStates]:
        at_once = settings.batch_size // settings.micro_batches
        return unit_states(
            state.params, sequences, config, settings.compute, workspace, at_once, margins=False
        )

    update = Update(state, grads, step, lr, settings, watch)
    with contextlib.ExitStack() as after_the_update:
        for intervene in acting:
            after_the_update.enter_context(around_update(intervene, update))
        grad_norm = compute.global_norm(grads, settings.compute)
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            raise not_finite(run, state, sequences, loss, grad_norm)
        compute.update(state.params, grads, state.slots, step, lr, settings, grad_norm)
    state.step = step

    n_tokens = settings.batch_size * config.n_ctx
    return {
        "kind": "train",
        "step": step,
        "tokens": step * n_tokens,
        "loss": loss,
        **({"l1_penalty": penalty} if settings.l1 else {}),
        "lr": lr,
        "grad_norm": grad_norm,
        **update.notes,
        "tokens_per_second": round(n_tokens / (time.perf_counter() - start), 1),
    }


@contextlib.contextmanager
def around_update(intervene: Around, update: Update) -> Iterator[None]:
    """Call an intervention now, and what follows its ``yield``, if it has one, afterwards."""
    rest = intervene(update)
    if not isinstance(rest, Iterator):
        yield
        return
    next(rest, None)
    yield
    next(rest, None)


def accumulated_grads(
    params: Parameters,
    sequences: np.ndarray,
    config: ModelConfig,
    settings: TrainConfig,
    workspace: Workspace,
) -> tuple[float, float, Parameters]:
    """Loss, penalty and gradient of a batch: means over its parts, which are equally large."""
    parts = np.split(sequences, settings.micro_batches)
    total = workspace.parameters("grads", config, params.dtype)
    loss = penalty = 0.0
    for i, part in enumerate(parts):
        grads = total
        if i > 0:
            grads = workspace.parameters("grads of a part", config, params.dtype)
        part_loss, part_penalty = compute.step(
            params, part[:, :-1], part[:, 1:], config, settings.compute, workspace, grads,
            settings.l1,
        )  # fmt: skip
        loss += part_loss / len(parts)
        penalty += part_penalty / len(parts)
        if i > 0:
            total.flat += grads.flat
    if len(parts) > 1:
        total.flat /= len(parts)
    return loss, penalty, total


def probe(run: Run, state: State, workspace: Workspace) -> Record:
    """Run the fixed probe, save its counts, and return its record."""
    config, settings = run.config, run.settings.train
    tokens = run.probe_tokens
    # as many sequences at a time as in training, so that its memory can be used
    at_once = settings.batch_size // settings.micro_batches
    counts, loss = measure(state.params, tokens, config, settings.compute, workspace, at_once)
    if not math.isfinite(loss):
        raise not_finite(run, state, tokens, loss)
    with explained(f"saving the counts of step {state.step}"):
        write_counts(run.counts_file(state.step), counts)
    return {
        "kind": "probe",
        "step": state.step,
        "tokens": state.step * settings.batch_size * config.n_ctx,
        "val_loss": loss,
        "probe_tokens": counts.n_tokens,
        "batch_tokens": counts.batch_size_used,
        **summary(counts, probe_measures()),
    }


def record_history(run: Run, state: State, workspace: Workspace) -> None:
    """Write down where every hidden unit stands, on the probe and on the text that confirms it."""
    settings = run.settings.train
    at_once = settings.batch_size // settings.micro_batches
    probe, more = run.probe_tokens, run.confirming_tokens
    on_probe, on_more = (
        unit_states(state.params, text, run.config, settings.compute, workspace, at_once, margins)
        for text, margins in ((probe, True), (more, False))
    )
    slow = state.step % (SLOW_EVERY * settings.history_every) == 0
    with explained(f"saving the history of step {state.step}"):
        write_history(
            run.history_file(state.step), probe, on_probe, more, on_more, state.params,
            state.slots.get("v"), slow,
        )  # fmt: skip


def write_record(file: IO[bytes], record: Record) -> None:
    """Append one line of JSON; a NaN, which JSON lacks, becomes null."""
    plain = {
        key: [None if isinstance(x, float) and math.isnan(x) else x for x in value]
        if isinstance(value, list)
        else value
        for key, value in record.items()
    }
    line = (json.dumps(plain, allow_nan=False) + "\n").encode("utf-8")
    with explained("writing metrics.jsonl"):
        if file.write(line) < len(line):  # unbuffered: a disk that fills up takes a part
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
