"""Format versions of the files that training fills: the stamp that they carry, and its check.

Format 1 is what minirelu 0.1.0 wrote, without a stamp. Format 2 is the same with one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

import minirelu
from minirelu.config import ModelConfig
from minirelu.errors import UserError, one_line, shown
from minirelu.runs.files import read_arrays, write_arrays
from minirelu.sparsity.counts import UnitCounts

METRICS_FORMAT = 2
COUNTS_FORMAT = 2


def metrics_stamp() -> dict[str, Any]:
    """Return the first record of ``metrics.jsonl``."""
    return {"kind": "format", "format": METRICS_FORMAT, "minirelu": minirelu.__version__}


def check_metrics(file: Path) -> None:
    """Raise a UserError where ``metrics.jsonl`` is of a format that this version cannot read.

    One without a stamp (format 1, empty, or missing) passes, and so does one that is damaged: its
    reader names the line.
    """
    try:
        with open(file, encoding="utf-8") as f:
            first = json.loads(f.readline())
        is_stamp = first["kind"] == "format"
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return
    if is_stamp:
        check_format(file, first.get("format"), METRICS_FORMAT, first.get("minirelu"))


def write_counts(file: Path, counts: UnitCounts) -> None:
    """Write counts as an ``.npz`` file with its stamp."""
    stamp = {"format": np.array(COUNTS_FORMAT), "minirelu": np.array(minirelu.__version__)}
    write_arrays(file, counts.to_arrays() | stamp)


def read_counts(file: Path, config: ModelConfig) -> UnitCounts:
    """Read counts of a model, or raise a UserError that names the file."""
    arrays = read_arrays(file)
    try:
        number = arrays.get("format", np.int64(1)).item()
        check_format(file, number, COUNTS_FORMAT, arrays.get("minirelu"))
        return UnitCounts.from_arrays(arrays, config)
    except UserError:
        raise
    except KeyError as e:
        raise UserError(f"{shown(file)} is damaged: it lacks {one_line(e)}") from None
    except (TypeError, ValueError) as e:
        raise UserError(f"{shown(file)} is damaged: {one_line(e)}") from None


def check_format(file: Path, number: Any, known: int, version: Any) -> None:
    """Raise where the format of a file is not one of 1 to ``known``, which this version reads."""
    if not isinstance(number, int):
        raise UserError(f"{shown(file)} is damaged: its format is not a number")
    if 1 <= number <= known:
        return
    readable = " and ".join(map(str, range(1, known + 1)))
    by, later = "", "a later version of minirelu"
    if version is not None:
        version = one_line(version)
        by, later = f", written by minirelu {version}", f"minirelu {version} or later"
    raise UserError(
        f"{shown(file)} is of format {number}{by}; this is {minirelu.__version__} and "
        f"reads formats {readable}: install {later}"
    )
