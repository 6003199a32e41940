"""Work that ends its own process at once, the first time; in a file that workers can import."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import numpy as np
from helpers import ODD, random_params

from minirelu.sweeps.running import train_run
from minirelu.training import trainer


def die_once(marker: Path) -> None:
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os._exit(9)


def die() -> None:
    os._exit(9)


def train_run_dying(marker: Path, at: int, folder: str, stop: str) -> bool:
    """Train a run; the first process that comes to step ``at`` dies there."""
    real = trainer.write_record

    def writing(file, record):
        if record.get("step") == at:
            die_once(marker)
        real(file, record)

    with mock.patch.object(trainer, "write_record", writing):
        return train_run(folder, stop)


def load_odd():
    return seldom_on(), ODD


def seldom_on(seed: int = 0):
    """Weights with units that are on in some batches only."""
    params = random_params(ODD, seed)
    for l in range(ODD.n_layers):
        params[f"blocks.{l}.mlp.b_in"][:] -= np.linspace(1.5, 3, ODD.d_mlp)
    return params


def load_odd_dying(marker: Path):
    die_once(marker)
    return load_odd()


def load_nothing():
    raise FileNotFoundError(2, "No such file", "weights")
