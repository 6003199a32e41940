"""What several tests use: small models away from special values, and one finished tiny run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minirelu as mr
from minirelu.runs.prepare import create_run
from minirelu.runs.run import MEASURES

# Odd on purpose: 3 heads, widths that are multiples of nothing, a prime vocabulary.
ODD = mr.ModelConfig(n_layers=2, n_heads=3, d_model=12, d_mlp=37, n_ctx=9, d_vocab=101)


def random_params(config: mr.ModelConfig, seed: int = 0, dtype=np.float64) -> mr.Parameters:
    """Weights with nothing special about them: gains are not 1, biases not 0."""
    params = mr.Parameters(config, dtype)
    rng = np.random.default_rng(seed)
    for name, p in params.items():
        p[...] = rng.normal(1.0 if name.endswith(".w") else 0.0, 0.3, p.shape)
    return params


def random_tokens(config: mr.ModelConfig, B: int, T: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, config.d_vocab, (B, T))


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


def quick_settings(corpus: Path | str, **train) -> mr.Config:
    """A run of less than a second."""
    options = {
        "model": dict(n_layers=2, n_heads=2, d_model=16, d_mlp=32, n_ctx=16, d_vocab=300),
        "text": dict(corpus=str(corpus)),
        "train": dict(steps=12, batch_size=4, probe_tokens=256, warmup_steps=4) | train,
    }
    return mr.Config.build("tiny", options=options)


@pytest.fixture(scope="session")
def finished_run(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> mr.Run:
    """A finished run; for reading only."""
    run = create_run(quick_settings(text_file), tmp_path_factory.mktemp("runs") / "finished")
    assert mr.train(run)
    return run


def command(*arguments: object, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess:
    """Run the command line as a user does, in a process of its own."""
    root = str(Path(mr.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "PYTHONIOENCODING": "utf-8", **env}
    return subprocess.run(
        [sys.executable, "-m", "minirelu", *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        cwd=cwd,
        env=environment,
        timeout=300,
    )


def check_fails_plainly(result: subprocess.CompletedProcess, *words: str) -> str:
    """Check the promise about mistakes: one line, exit code 2, no traceback; return the line."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("minirelu: ")
    for word in words:
        assert word in lines[0], f"{word!r} is not in {lines[0]!r}"
    return lines[0]


@pytest.fixture(scope="session")
def dask_address() -> Iterator[str]:
    """A Dask cluster of two worker processes here; one that dies is started again."""
    distributed = pytest.importorskip("distributed", reason="distributed is not installed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
    ) as cluster:
        yield cluster.scheduler_address


def made_run(
    folder: Path, like: mr.Run, probes: list[dict[str, Any]], **changes: dict[str, Any]
) -> mr.Run:
    """A run with the probes given, without weights or counts; ``changes`` are in its settings.

    A probe needs ``step``, and the measures of which the test wants to know the values.
    """
    folder.mkdir(parents=True)
    tables = like.settings.tables()
    for section, values in changes.items():
        tables[section] |= values
    settings = mr.Config.from_tables(tables)
    (folder / "config.toml").write_text(settings.to_toml(), encoding="utf-8")
    shutil.copy(like.folder / "corpus.json", folder)
    lines = []
    for given in probes:
        shares = [0.5] * settings.model.n_layers
        tokens = given["step"] * settings.train.batch_size * settings.model.n_ctx
        record = {"kind": "probe", "tokens": tokens, "val_loss": 5.0}
        record |= {"probe_tokens": 256, "batch_tokens": 256, **dict.fromkeys(MEASURES, shares)}
        lines.append(json.dumps(record | given) + "\n")
    (folder / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")
    return mr.Run.open(folder)
