"""Trainings made up for the claims: shares by step, seed by seed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from helpers import made_run

import minirelu as mr

STEPS = (0, 16, 32, 64, 128, 256, 400)


@pytest.fixture
def trained_to(finished_run, tmp_path) -> Callable[..., mr.Run]:
    """``trained_to(end, seed=0, ...)``: a run whose shares go evenly from 1 to ``end``.

    ``end`` has a number for each layer. Other measures, in ``courses``, are lists of such lists,
    one for each step. What else is given are settings of the model.
    """

    def make(end, seed=0, steps=STEPS, loss=0.5, courses=None, **model):
        L, last = len(end), steps[-1]
        probes = []
        for i, step in enumerate(steps):
            now = [1 + (e - 1) * step / last for e in end]
            probe = {"step": step, "val_loss": loss}
            probe |= {m: now for m in ("per_token", "per_sequence", "per_batch")}
            probe |= {m: rows[i] for m, rows in (courses or {}).items()}
            probes.append(probe)
        folder = tmp_path / f"made-{L}-{seed}-{len(list(tmp_path.iterdir()))}"
        return made_run(
            folder, finished_run, probes,
            model={"n_layers": L, **model}, train={"seed": seed, "steps": last},
        )  # fmt: skip

    return make
