"""What several tests share: small models away from special values, made runs, the command line."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import minirelu as mr
from minirelu.cli.main import main
from minirelu.runs.prepare import create_run
from minirelu.sparsity.measures import probe_measures
from minirelu.sweeps.sweep import Sweep

# Odd on purpose: 3 heads, widths that are multiples of nothing, a prime vocabulary.
ODD = mr.ModelConfig(n_layers=2, n_heads=3, d_model=12, d_mlp=37, n_ctx=9, d_vocab=101)
# Options of a training of seconds.
QUICK = ("--preset", "tiny", "--steps", 4, "--probe-tokens", 256, "--n-ctx", 16, "--d-vocab", 300)


def random_params(config: mr.ModelConfig, seed: int = 0, dtype=np.float64) -> mr.Parameters:
    """Weights with nothing special about them: gains are not 1, biases not 0."""
    params = mr.Parameters(config, dtype)
    rng = np.random.default_rng(seed)
    for name, p in params.items():
        p[...] = rng.normal(1.0 if name.endswith(".w") else 0.0, 0.3, p.shape)
    return params


def random_tokens(config: mr.ModelConfig, B: int, T: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, config.d_vocab, (B, T))


def quick_settings(corpus: Path | str, **train) -> mr.Config:
    """A run of less than a second."""
    options = {
        "model": dict(n_layers=2, n_heads=2, d_model=16, d_mlp=32, n_ctx=16, d_vocab=300),
        "text": dict(corpus=str(corpus)),
        "train": dict(steps=12, batch_size=4, probe_tokens=256, warmup_steps=4) | train,
    }
    return mr.Config.build("tiny", options=options)


def new_run(tmp_path: Path, text_file: Path, name: str = "run", **train) -> mr.Run:
    return create_run(quick_settings(text_file, **train), tmp_path / name)


def result(run: mr.Run) -> tuple[bytes, list[dict]]:
    """Everything that must not depend on interruptions: weights, moments, records, counts."""
    last = run.checkpoints / f"step_{run.steps[-1]:06d}"
    weights = (last / "model.safetensors").read_bytes()
    moments = (last / "optimizer.safetensors").read_bytes()
    records = [
        {k: v for k, v in json.loads(line).items() if k != "tokens_per_second"}
        for line in (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    counts = [run.counts(p["step"]).tokens_on[0].tolist() for p in run.probes()]
    return weights + moments, [*records, {"counts": counts}]


def stop_after(n: int):
    """``should_stop`` that says yes after n steps."""
    calls = iter(range(10**9))
    return lambda: next(calls) >= n - 1


def small_sweep(corpus: Path, seeds: int = 2, **train) -> Sweep:
    """Two widths, two seeds, a second in all."""
    options = {
        "model": dict(n_layers=2, n_heads=2, d_model=16, n_ctx=16, d_vocab=300),
        "text": dict(corpus=str(corpus)),
        "train": dict(steps=12, batch_size=4, probe_tokens=256, warmup_steps=4) | train,
    }
    return Sweep.build("tiny", None, options, {"d_mlp": (24, 40)}, seeds)


def drawn(figure):
    """The panels of a figure: those that can be seen, in order."""
    return [axes for axes in figure.axes if axes.get_visible() and axes.get_label() != "<colorbar>"]


def command(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """Run the command line in this process, which takes a tenth of the time of :func:`process`."""
    before, out, err = Path.cwd(), io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("default")  # a warning is a line on stderr, as a user would see it
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.showwarning = lambda message, *_, **__: print(message, file=sys.stderr)
        os.chdir(cwd or before)
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as e:
            return subprocess.CompletedProcess(arguments, e.code, out.getvalue(), err.getvalue())
        finally:
            os.chdir(before)


def process(*arguments: object, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess:
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
        record |= {"probe_tokens": 256, "batch_tokens": 256}
        record |= {measure.name: shares for measure in probe_measures()}
        lines.append(json.dumps(record | given) + "\n")
    (folder / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")
    return mr.Run.open(folder)
