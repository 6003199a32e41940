"""Fixtures of several tests; plain helpers are in helpers.py."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import ODD, made_run, quick_settings, small_sweep
from PIL import Image

import minirelu as mr
from minirelu import estimate
from minirelu.figures import figures_of
from minirelu.report import page
from minirelu.runs.prepare import create_run
from minirelu.sweeps.running import run_sweep
from minirelu.sweeps.sweep import Sweep


@pytest.fixture
def odd() -> mr.ModelConfig:
    return ODD


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small text with some structure, made here."""
    rng = np.random.default_rng(0)
    words = np.array(["the", "cat", "dog", "sees", "hears", "a", "bird", "in", "garden", "."])
    lines = [" ".join(rng.choice(words, 12)) for _ in range(1500)]
    file = tmp_path_factory.mktemp("text") / "made.txt"
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def finished_run(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> mr.Run:
    """A finished run; for reading only."""
    run = create_run(quick_settings(text_file), tmp_path_factory.mktemp("runs") / "finished")
    assert mr.train(run)
    return run


@pytest.fixture(scope="session")
def run_with_history(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> mr.Run:
    """A finished run in which units die and come back, and all are followed; for reading only."""
    train = dict(steps=96, history_every=4, history_tokens=1024, learning_rate=0.1)
    run = create_run(quick_settings(text_file, **train), tmp_path_factory.mktemp("runs") / "lives")
    assert mr.train(run)
    return run


@pytest.fixture
def plain_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of something else: a report's figures are one grey point each."""

    def draw_points(run: mr.Run, folder: Path) -> dict[str, Path]:
        files = {name: folder / f"{name}.png" for name in figures_of(run)}
        for file in files.values():
            Image.new("L", (1, 1), 128).save(file)
        return files

    monkeypatch.setattr(page, "draw_all", draw_points)


@pytest.fixture
def guessed_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of something else: the time of a step is not measured."""
    monkeypatch.setattr(estimate, "step_time", lambda settings: estimate.StepTime(0.02, 0.01))


@pytest.fixture(scope="session")
def dask_address() -> Iterator[str]:
    """A Dask cluster of two worker processes here; one that dies is started again."""
    distributed = pytest.importorskip("distributed", reason="distributed is not installed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="session")
def finished_sweep(text_file, tmp_path_factory) -> tuple[Path, Sweep]:
    """A sweep done one run after the other; for reading only."""
    folder, sweep = tmp_path_factory.mktemp("sweeps") / "done", small_sweep(text_file)
    assert run_sweep(sweep, folder) == {}
    return folder, sweep


@pytest.fixture
def trained(finished_run, tmp_path) -> Path:
    """A copy of a finished run, to change."""
    return Path(shutil.copytree(finished_run.folder, tmp_path / "trained"))


@pytest.fixture
def trained_to(finished_run, tmp_path) -> Callable[..., mr.Run]:
    """``trained_to(end, seed=0, ...)``: a run whose shares go evenly from 1 to ``end``.

    ``end`` has a number for each layer. Other measures, in ``courses``, are lists of such lists,
    one for each step. What else is given are settings of the model.
    """

    def make(end, seed=0, steps=(0, 16, 32, 64, 128, 256, 400), loss=0.5, courses=None, **model):
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
