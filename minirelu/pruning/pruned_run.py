"""A run that goes on from another one with fewer hidden units: a real, smaller checkpoint."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from minirelu.compute import Workspace
from minirelu.config import Config
from minirelu.errors import UserError, shown
from minirelu.model.parameters import Parameters
from minirelu.pruning.smaller import smaller, smaller_config
from minirelu.runs.checkpoint import (
    MODEL,
    checkpoint_steps,
    load_slots,
    load_state,
    new_slots,
    save_checkpoint,
)
from minirelu.runs.files import explained, replacing_folder, write_text
from minirelu.runs.formats import metrics_stamp
from minirelu.runs.prepare import copy_text, make_rest, refuse_taken
from minirelu.runs.run import Run
from minirelu.training.state import State
from minirelu.training.trainer import probe, write_record

KEPT = "kept_units.json"  # the parent's numbers of the units that are left, layer by layer


def pruned_settings(parent: Run, step: int, keep: Sequence[np.ndarray], more_steps: int) -> Config:
    """Settings of :func:`pruned_run`."""
    train = parent.settings.train
    if more_steps < 0 or step + more_steps < 1:
        raise UserError(f"more steps: {more_steps} is not allowed; there must be a step to end at")
    return dataclasses.replace(
        parent.settings,
        model=smaller_config(parent.config, keep),
        # What watches or moves single units would look for those that are gone.
        train=dataclasses.replace(
            train, steps=step + more_steps, intervene=(), history_every=0, keep_optimizer_at=()
        ),
    )


def pruned_run(
    parent: Run,
    step: int,
    keep: Sequence[np.ndarray],
    folder: str | Path,
    more_steps: int = 0,
    by: str = "",
) -> Run:
    """Make a run whose first checkpoint is that of another one without some hidden units.

    It stands at the parent's step, has the parent's text, and begins with a probe. Adam's moments
    of the units that are left, and of everything else, go with it where the parent has them at
    that step; otherwise they begin at zero. Trained on, it meets the batches that the parent would
    have met, at the rates of a training that long.

    Parameters
    ----------
    parent : Run
    step : int
        one whose weights are kept.
    keep : sequence of L arrays, (F,) bool
    folder : path
        must not exist, or be empty.
    more_steps : int
        to be trained; 0: none, and the run counts as finished.
    by : str
        how units were chosen, for the record.

    Returns
    -------
    Run
        ``kept_units.json`` in its folder has the parent's numbers of its units.

    Raises
    ------
    UserError
        the folder is taken, there are no weights of that step, masks for another model.
    """
    folder = Path(folder)
    settings = pruned_settings(parent, step, keep, more_steps)
    params = smaller(parent.params(step), keep)
    changed = parent.settings.differences(settings)
    if by:
        changed.append(f"hidden units removed by {by}")
    slots = new_slots(settings)
    if step in checkpoint_steps(parent.checkpoints, resumable=True):
        whole = load_slots(parent.checkpoints, step, new_slots(parent.settings))
        slots = {name: smaller(slot, keep) for name, slot in whole.items()}
    else:
        changed.append("the optimizer's state begins empty")
    lineage = {
        "run": parent.name,
        "step": step,
        "weights_sha256": load_state(parent.checkpoints, step)["sha256"][MODEL],
        "changed": changed,
    }
    with explained(f"making the run folder {shown(folder)}"):
        refuse_taken(folder)
        with replacing_folder(folder) as new:
            copy_text(parent, new)
            make_rest(new, settings, parent=lineage)
            kept = [np.flatnonzero(k).tolist() for k in keep]
            write_text(new / KEPT, json.dumps(kept))
            state = State(step, params, slots)
            with open(new / "metrics.jsonl", "ab", buffering=0) as metrics:
                write_record(metrics, metrics_stamp())
                write_record(metrics, probe(Run(new, settings), state, Workspace()))
                save_checkpoint(
                    new / "checkpoints", step, params, slots, {},
                    config=settings.tables(), metrics_bytes=metrics.tell(),
                )  # fmt: skip
    return Run.open(folder)


def second_moment(run: Run, step: int) -> Parameters | None:
    """Adam's running mean of the squared gradient at a step; None where it is not on disk."""
    adam = run.settings.train.optimizer == "adamw"
    if not adam or step not in checkpoint_steps(run.checkpoints, resumable=True):
        return None
    return load_slots(run.checkpoints, step, new_slots(run.settings))["v"]
