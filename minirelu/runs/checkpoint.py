"""Checkpoints: weights, optimizer and state of one step, verified by a digest of themselves."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from minirelu.config import Config, ModelConfig
from minirelu.errors import UserError, one_line, shown
from minirelu.model.parameters import Parameters, n_params
from minirelu.runs.files import read_json, replacing_folder, sha256
from minirelu.training.optimizers import OPTIMIZERS

MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
MEMORY = "memory."  # what names of interventions' arrays begin with, in the optimizer's file


def checkpoint_folder(checkpoints: Path, step: int) -> Path:
    """``checkpoints/step_000123``."""
    return checkpoints / f"step_{step:06d}"


def checkpoint_steps(checkpoints: Path, resumable: bool = False) -> list[int]:
    """Steps with weights on disk (and, if ``resumable``, the optimizer state), in order."""
    needed = (STATE, MODEL, OPTIMIZER) if resumable else (STATE, MODEL)
    steps = []
    for folder in checkpoints.glob("step_*"):
        number = folder.name[5:]
        if number.isdecimal() and all((folder / name).is_file() for name in needed):
            steps.append(int(number))
    return sorted(steps)


def save_checkpoint(
    checkpoints: Path,
    step: int,
    params: Parameters,
    slots: Mapping[str, Parameters],
    memory: Mapping[str, np.ndarray],
    **state: Any,
) -> None:
    """Write one checkpoint; it appears complete or not at all.

    Parameters
    ----------
    checkpoints : Path
    step : int
    params : Parameters
    slots : mapping of Parameters
        what the optimizer remembers, by name; a tensor's name in the file is ``slot.name``.
    memory : mapping of ndarray
        what interventions remember; in the same file, as ``memory.name``.
    **state
        goes into ``state.json`` beside the step and the digests of both files.

    Raises
    ------
    OSError
        such as a full disk; earlier checkpoints are left as they were.
    """
    final = checkpoint_folder(checkpoints, step)
    if final.exists() and step not in checkpoint_steps(checkpoints, resumable=True):
        shutil.rmtree(final)  # part of it was removed: it is made anew, with the same content
    with replacing_folder(final) as folder:
        remembered = _by_slot(slots) | {MEMORY + name: a for name, a in memory.items()}
        for file, tensors in ((MODEL, dict(params)), (OPTIMIZER, remembered)):
            save_tensors(folder / file, tensors)
        content = {"step": step, **state}
        content["sha256"] = {file: sha256(folder / file) for file in (MODEL, OPTIMIZER)}
        content["state_sha256"] = _state_digest(content)
        (folder / STATE).write_text(json.dumps(content, indent=1), encoding="utf-8")


def _state_digest(state: dict[str, Any]) -> str:
    """Digest of everything in ``state.json`` but itself."""
    rest = {key: value for key, value in state.items() if key != "state_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode("utf-8")).hexdigest()


def save_tensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Write a safetensors file; its failures become ``OSError`` like those of any other file."""
    try:
        save_file(tensors, path)
    except SafetensorError as e:
        full = "No space left" in str(e) or "os error 28" in str(e)
        raise OSError(errno.ENOSPC if full else errno.EIO, one_line(e), str(path)) from None


def load_state(checkpoints: Path, step: int) -> dict[str, Any]:
    """Read ``state.json``; raises if it is not what was written for this step."""
    folder = checkpoint_folder(checkpoints, step)
    state = read_json(folder / STATE)
    if not isinstance(state, dict) or state.get("state_sha256") != _state_digest(state):
        raise damaged(folder, STATE, "its digest is not the one it was written with")
    if state["step"] != step:
        raise damaged(folder, STATE, f"it belongs to step {state['step']}")
    return state


def damaged(folder: Path, name: str, why: str) -> UserError:
    """Return the error that names a file of a checkpoint, and says what can be done."""
    return UserError(
        f"the checkpoint file {shown(folder / name)} is damaged: {why}; remove the folder "
        f"{shown(folder)} to use an earlier one"
    )


def load_params(checkpoints: Path, step: int, config: ModelConfig) -> Parameters:
    """Read the weights of a step.

    Raises
    ------
    UserError
        naming the file: missing, cut short, changed since it was written, of another model.
    """
    file = _verified(checkpoints, step, MODEL)
    refuse_too_small(file, weight_bytes(config))
    params = Parameters(config)
    read_tensors(file, params)
    return params


def new_slots(settings: Config) -> dict[str, Parameters]:
    """What the optimizer remembers before its first step: zeros."""
    return {name: Parameters(settings.model) for name in OPTIMIZERS[settings.train.optimizer].slots}


def load_slots(checkpoints: Path, step: int, slots: dict[str, Parameters]) -> dict[str, Parameters]:
    """Fill the optimizer's slots with those of a step; raises as :func:`load_params` does."""
    read_tensors(_verified(checkpoints, step, OPTIMIZER), _by_slot(slots))
    return slots


def load_memory(checkpoints: Path, step: int) -> dict[str, np.ndarray]:
    """Read what interventions remembered at a step; raises as :func:`load_params` does."""
    with _opened(_verified(checkpoints, step, OPTIMIZER)) as f:
        names = [name for name in f.keys() if name.startswith(MEMORY)]
        return {name.removeprefix(MEMORY): f.get_tensor(name) for name in names}


def _by_slot(slots: Mapping[str, Parameters]) -> dict[str, np.ndarray]:
    return {f"{slot}.{name}": a for slot, params in slots.items() for name, a in params.items()}


def _verified(checkpoints: Path, step: int, name: str) -> Path:
    folder = checkpoint_folder(checkpoints, step)
    file = folder / name
    if not file.is_file():
        raise UserError(f"the checkpoint {shown(folder)} lacks its {name}")
    if sha256(file) != load_state(checkpoints, step)["sha256"].get(name):
        raise damaged(folder, name, f"its digest is not the one in {STATE}")
    return file


def read_tensors(file: Path, into: Parameters | dict[str, np.ndarray]) -> None:
    """Fill arrays from a safetensors file that must hold exactly those names and shapes.

    Beside them it may hold what interventions remembered, which :func:`load_memory` reads.
    """
    with _opened(file) as f:
        stored = {name for name in f.keys() if not name.startswith(MEMORY)}
        for name in sorted(stored.symmetric_difference(into)):
            word = "lacks the" if name in into else "has an unknown"
            raise UserError(f"{shown(file)} is of another model: it {word} tensor {name!r}")
        for name, array in into.items():
            shape = tuple(f.get_slice(name).get_shape())
            if shape != array.shape:
                raise UserError(
                    f"{shown(file)} is of another model: {name} has shape {shape}, "
                    f"not {array.shape}"
                )
        for name, array in into.items():
            array[...] = f.get_tensor(name)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """Open a safetensors file; what is wrong with it becomes a UserError that names it."""
    try:
        with safe_open(file, framework="numpy") as f:
            yield f
    except (SafetensorError, OSError, ValueError) as e:
        if isinstance(e, UserError):
            raise
        raise UserError(
            f"{shown(file)} is not a readable safetensors file: {one_line(e)}"
        ) from None


def refuse_too_small(file: Path, expected: int) -> None:
    """Raise before memory is taken for a model that the file cannot hold."""
    if file.stat().st_size < expected:
        raise UserError(
            f"{shown(file)} is of another model: it has {file.stat().st_size:,} bytes, and the "
            f"settings call for {expected:,}"
        )


def thin_out(
    checkpoints: Path, keep_weights: Iterable[int], keep_optimizer_at: Iterable[int] = ()
) -> None:
    """Remove what need not stay: older optimizer states, and weights beyond the disk budget.

    The last two optimizer states always stay, for resuming.
    """
    resumable = {*checkpoint_steps(checkpoints, resumable=True)[-2:], *keep_optimizer_at}
    keep_weights = set(keep_weights)
    for folder in checkpoints.glob("step_*"):
        if not (folder / STATE).is_file():  # a removal that was cut short
            shutil.rmtree(folder, ignore_errors=True)
    for step in checkpoint_steps(checkpoints):
        folder = checkpoint_folder(checkpoints, step)
        if step in resumable:
            continue
        (folder / OPTIMIZER).unlink(missing_ok=True)
        if step not in keep_weights:
            (folder / STATE).unlink()  # from here on it is no longer a checkpoint
            shutil.rmtree(folder, ignore_errors=True)


def weight_bytes(config: ModelConfig) -> int:
    """Size of one checkpoint's weights on disk."""
    return 4 * n_params(config)
