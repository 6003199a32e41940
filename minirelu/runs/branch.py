"""Branching a new run off a step of another one: rewinding, and going on with something changed."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

from minirelu.config import Config
from minirelu.errors import UserError, shown
from minirelu.runs.checkpoint import (
    MODEL,
    OPTIMIZER,
    checkpoint_folder,
    checkpoint_steps,
    load_memory,
    load_params,
    load_slots,
    load_state,
    new_slots,
    save_checkpoint,
)
from minirelu.runs.files import explained, replacing_folder
from minirelu.runs.prepare import copy_text, make_rest, refuse_taken
from minirelu.runs.run import Run

# What a branch cannot change, since weights, text and probe stay the parent's.
_FREE_MODEL = ("act_fn", "act_k")  # of a model, only these may differ
_FIXED_TRAIN = ("probe_tokens", "seed")


def branch(parent: Run, step: int, settings: Config, folder: str | Path) -> Run:
    """Make a run that goes on from a step of another one.

    The new folder begins with the parent's weights, optimizer state, metrics and counts up to that
    step, and with its text. Trained with the same settings it ends with the parent's bits.

    Parameters
    ----------
    parent : Run
    step : int
        one whose weights and optimizer state the parent has kept.
    settings : Config
        the parent's, but for what is to be different.
    folder : path
        must not exist, or be empty.

    Returns
    -------
    Run
        ``Run.parent`` says where it comes from, and what is different.

    Raises
    ------
    UserError
        there is no optimizer state of that step (those that have one are named); a setting that
        cannot differ; the folder is taken.
    """
    folder = Path(folder)
    resumable = checkpoint_steps(parent.checkpoints, resumable=True)
    if step not in resumable:
        known = ", ".join(map(str, resumable)) or "none"
        raise UserError(
            f"{shown(parent.folder)} has no optimizer state of step {step} to branch off at; steps "
            f"that have it: {known}. Train with --keep-optimizer-at {step} to keep it"
        )
    changed = settings.differences(parent.settings)
    _refuse_fixed(parent.settings, settings)
    if step >= settings.train.steps:
        raise UserError(
            f"steps: {settings.train.steps} leaves nothing to do after step {step}; give more"
        )
    same_optimizer = settings.train.optimizer == parent.settings.train.optimizer
    with explained(f"making the run folder {shown(folder)}"):
        refuse_taken(folder)
        params = load_params(parent.checkpoints, step, parent.config)
        slots = load_slots(parent.checkpoints, step, new_slots(parent.settings))
        if not same_optimizer:  # another one has other slots, which begin empty
            slots = new_slots(settings)
        state = load_state(parent.checkpoints, step)
        metrics = (parent.folder / "metrics.jsonl").read_bytes()[: state["metrics_bytes"]]
        lineage: dict[str, Any] = {
            "run": parent.name,
            "step": step,
            "weights_sha256": state["sha256"][MODEL],
            "changed": changed,
        }
        with replacing_folder(folder) as new:
            copy_text(parent, new)
            make_rest(new, settings, code=parent.code[0][1], parent=lineage)
            (new / "metrics.jsonl").write_bytes(metrics)
            for room in ("counts", "history"):
                for file in sorted((parent.folder / room).glob("step_*.npz")):
                    if int(file.stem[5:]) <= step:
                        (new / room).mkdir(exist_ok=True)
                        shutil.copyfile(file, new / room / file.name)
            for earlier in parent.steps:
                if earlier < step:  # their weights, for whatever looks back
                    source = checkpoint_folder(parent.checkpoints, earlier)
                    target = checkpoint_folder(new / "checkpoints", earlier)
                    shutil.copytree(source, target, ignore=shutil.ignore_patterns(OPTIMIZER))
            save_checkpoint(
                new / "checkpoints", step, params, slots, load_memory(parent.checkpoints, step),
                config=settings.tables(), metrics_bytes=len(metrics),
            )  # fmt: skip
    return Run.open(folder)


def _refuse_fixed(parent: Config, child: Config) -> None:
    """Raise where a branch would need other weights, another text or another probe."""
    for section in ("model", "text", "train"):
        before, after = getattr(parent, section), getattr(child, section)
        for f in dataclasses.fields(before):
            fixed = {
                "model": f.name not in _FREE_MODEL,
                "text": True,
                "train": f.name in _FIXED_TRAIN,
            }[section]
            if fixed and getattr(before, f.name) != getattr(after, f.name):
                hint = "; for other batches give --data-seed" if f.name == "seed" else ""
                raise UserError(
                    f"{f.name}: a branch keeps its parent's {getattr(before, f.name)!r}; leave it "
                    f"out, or start a new run{hint}"
                )
