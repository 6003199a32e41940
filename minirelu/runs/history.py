"""``history/step_000123.npz``: the state of every hidden unit at one step of a training.

What changes from record to record is in each of them: how often a unit is on, and its margin. The
rest (bias, norm, ...) is in every fourth one, so that 200 records of 6 x 32768 units stay below
300 MB on disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

import minirelu
from minirelu.config import ModelConfig
from minirelu.errors import UserError, one_line, shown
from minirelu.model.parameters import Parameters
from minirelu.runs.files import read_arrays, write_arrays
from minirelu.runs.formats import check_format
from minirelu.sparsity.unit_states import UnitStates

HISTORY_FORMAT = 1
SLOW_EVERY = 4
FAST = ("tokens_on", "sequences_on", "confirm_on", "margin")
SLOW = ("bias", "norm", "alignment", "mean_post", "second_moment")
SIZES = ("n_tokens", "n_sequences", "n_confirm_tokens", "n_confirm_sequences")


def write_history(
    file: Path,
    probe: np.ndarray,
    on_probe: list[UnitStates],
    confirming: np.ndarray,
    on_more: list[UnitStates],
    params: Parameters,
    v: Parameters | None,
    slow: bool,
) -> None:
    """Write one record.

    Parameters
    ----------
    file : Path
    probe, confirming : int ndarray, (S, T + 1)
        the texts.
    on_probe, on_more : list of L UnitStates
        what the units did on them.
    params : Parameters
    v : Parameters, optional
        Adam's running mean of the squared gradient.
    slow : bool
        whether to write what is in every fourth record only.
    """
    texts = (probe, confirming)
    sizes = [n for text in texts for n in (len(text) * (text.shape[1] - 1), len(text))]
    arrays = {name: np.array(n) for name, n in zip(SIZES, sizes, strict=True)}
    arrays |= {"format": np.array(HISTORY_FORMAT), "minirelu": np.array(minirelu.__version__)}
    largest = np.finfo(np.float16).max
    for l, (state, more) in enumerate(zip(on_probe, on_more, strict=True)):
        arrays[f"tokens_on.{l}"] = _small(state.tokens_on, sizes[0])
        arrays[f"sequences_on.{l}"] = _small(state.sequences_on, sizes[1])
        arrays[f"confirm_on.{l}"] = _small(more.sequences_on, sizes[3])
        numbers = {"margin": state.margin}
        if slow:
            numbers |= _slow(state, params, v, f"blocks.{l}.mlp.")
        for name, values in numbers.items():
            arrays[f"{name}.{l}"] = np.clip(values, -largest, largest).astype(np.float16)
    file.parent.mkdir(exist_ok=True)
    write_arrays(file, arrays)


def _slow(
    state: UnitStates, params: Parameters, v: Parameters | None, block: str
) -> dict[str, np.ndarray]:
    W_in = params[block + "W_in"]
    norm = np.linalg.norm(W_in, axis=1)
    sizes = norm * np.linalg.norm(state.mean_input)
    numbers = {
        "bias": params[block + "b_in"] if block + "b_in" in params else np.zeros(len(W_in)),
        "norm": norm,
        "alignment": (W_in @ state.mean_input) / np.where(sizes > 0, sizes, 1),
        "mean_post": state.mean_post,
    }
    if v is not None:  # as a power of ten, since it spans many of them; -20 for 0
        mean = v[block + "W_in"].mean(axis=1, dtype=np.float64)
        numbers["second_moment"] = 0.5 * np.log10(np.maximum(mean, 1e-40))
    return numbers


def _small(counts: np.ndarray, most: int) -> np.ndarray:
    """Whole numbers from 0 to ``most`` in the smallest type that holds them."""
    return counts.astype(np.min_scalar_type(most))


def read_history(file: Path, config: ModelConfig) -> dict[str, np.ndarray]:
    """Read one record, or raise a UserError that names the file."""
    arrays = read_arrays(file)
    try:
        check_format(file, arrays["format"].item(), HISTORY_FORMAT, arrays.get("minirelu"))
        _check_shapes(arrays, config)
    except KeyError as e:
        raise UserError(f"{shown(file)} is damaged: it lacks {one_line(e)}") from None
    except ValueError as e:
        if isinstance(e, UserError):
            raise
        raise UserError(f"{shown(file)} is damaged: {one_line(e)}") from None
    return arrays


def _check_shapes(arrays: Mapping[str, np.ndarray], config: ModelConfig) -> None:
    for name in SIZES:
        if arrays[name].shape or arrays[name].dtype.kind not in "iu":
            raise ValueError(f"{name} is not a whole number")
    for l, F in enumerate(config.mlp_widths):
        for name in (*FAST, *SLOW):
            key = f"{name}.{l}"
            if name in SLOW and key not in arrays:
                continue
            kind = "iu" if name.endswith("_on") else "f"
            if arrays[key].shape != (F,) or arrays[key].dtype.kind not in kind:
                raise ValueError(f"{key} is of another model")
