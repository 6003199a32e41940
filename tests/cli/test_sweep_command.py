"""``minirelu sweep`` as a user meets it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import check_fails_plainly, command, process

import minirelu as mr
from minirelu import workers

pytestmark = pytest.mark.usefixtures("plain_figures", "guessed_steps")

QUICK = ("--preset", "tiny", "--steps", 6, "--probe-tokens", 256, "--n-ctx", 16, "--d-vocab", 300)
GRID = ("--vary", "d_mlp=24,40", "--seeds", 2)
NAMES = [f"d_mlp={width},seed={seed}" for seed in (0, 1) for width in (24, 40)]


@pytest.fixture(scope="module")
def done(text_file, tmp_path_factory) -> Path:
    """A folder with a finished sweep in s; for reading only."""
    place = tmp_path_factory.mktemp("sweep")
    result = sweep(text_file, place)
    assert result.returncode == 0, result.stderr
    (place / "output").write_text(result.stdout, encoding="utf-8")
    return place


def sweep(text_file: Path, place: Path, *more: object) -> subprocess.CompletedProcess:
    return command("sweep", *QUICK, *GRID, "--corpus", text_file, "--out", "s", *more, cwd=place)


def written(folder: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in folder.glob("*/**/*") if p.is_file()}


def weights(folder: Path) -> list[bytes]:
    return [mr.Run.open(folder / name).params().flat.tobytes() for name in NAMES]


def test_a_grid_is_trained_and_its_table_written(done):
    output = (done / "output").read_text(encoding="utf-8")
    for words in ("4 runs: d_mlp 24, 40; seed 0, 1", "0 runs are finished", "time", "per batch"):
        assert words in output
    assert "4/4  d_mlp=40,seed=1  val loss" in output
    assert output.splitlines()[-1].startswith("next    minirelu figure fig3 s")
    assert sorted(p.name for p in (done / "s").iterdir() if p.is_dir()) == sorted(NAMES)
    assert sorted(p.name for p in (done / "s").iterdir() if not p.is_dir()) == [
        ".lock", "sweep.csv", "sweep.json", "sweep.toml",
    ]  # fmt: skip
    table = (done / "s/sweep.csv").read_text(encoding="utf-8").splitlines()
    assert len(table) == 1 + 4 * 2 and table[0].startswith("d_mlp,seed,layer,step,tokens,val_loss")
    rows = [line.split() for line in output.splitlines() if line.split()[:1] == ["24"]]
    probes = [mr.Run.open(done / "s" / name).probes()[-1] for name in NAMES[::2]]
    shares = [100 * probe["per_token"][1] for probe in probes]
    assert rows[1][1] == "1" and rows[1][2] == f"{sum(shares) / 2:.1f}"
    assert rows[1][3] == f"({min(shares):.1f}-{max(shares):.1f})"


def test_a_finished_sweep_is_not_trained_again(done, text_file):
    before = written(done / "s")
    result = sweep(text_file, done)
    assert result.returncode == 0 and "4 runs are finished" in result.stdout
    assert "per batch" in result.stdout  # the table is there again
    assert written(done / "s") == before


def test_workers_give_the_same_runs(done, text_file, tmp_path):
    result = sweep(text_file, tmp_path, "--workers", 2)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "s/sweep.csv").read_bytes() == (done / "s/sweep.csv").read_bytes()
    assert weights(tmp_path / "s") == weights(done / "s")


def test_a_cluster_gives_the_same_runs(done, text_file, tmp_path, dask_address):
    result = sweep(text_file, tmp_path, "--scheduler", dask_address)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "s/sweep.csv").read_bytes() == (done / "s/sweep.csv").read_bytes()
    assert weights(tmp_path / "s") == weights(done / "s")


@pytest.mark.skipif(os.name == "nt", reason="signals differ on Windows")
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_stops_and_the_same_command_goes_on(done, text_file, tmp_path, workers):
    """All processes get it, as from a terminal."""
    arguments = ["sweep", *QUICK, *GRID, "--corpus", text_file, "--out", "s"]
    arguments += ["--workers", workers, "--steps", 100_000]
    process = subprocess.Popen(
        [sys.executable, "-m", "minirelu", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(mr.__file__).parents[1])},
        start_new_session=True,
    )  # fmt: skip
    metrics = [tmp_path / "s" / name / "metrics.jsonl" for name in NAMES[:workers]]
    deadline = time.monotonic() + 120
    while not all(m.exists() and m.read_bytes().count(b"\n") > 16 for m in metrics):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    assert out.splitlines()[-1].startswith("stopped after 0 finished runs, all saved")
    for name in NAMES[:workers]:
        run = mr.Run.open(tmp_path / "s" / name)
        assert run.steps[-1] == run.metrics("train")[-1]["step"] > 8
    assert not (tmp_path / "s/.stop").exists()


def test_a_named_sweep_has_a_default_folder(text_file, tmp_path):
    result = command(
        "sweep", "fig4", "--vary", "n_layers=1", "--seeds", 1, "--steps", 1, "--d-mlp", 8,
        "--n-ctx", 16, "--batch-size", 1, "--d-vocab", 300, "--corpus", text_file, cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    run = mr.Run.open(tmp_path / "sweeps/fig4/n_layers=1,seed=0")
    assert (run.config.n_layers, run.config.d_mlp, run.config.d_model) == (1, 8, 64)
    assert result.stdout.splitlines()[-1].endswith("figure fig4 sweeps/fig4")


def test_sparsity_on_workers_gives_the_same_counts(finished_run, tmp_path, dask_address):
    """The counts' files are the same, whatever counted."""
    for name, options in {
        "here": (), "two": ("--workers", 2), "cluster": ("--scheduler", dask_address),
    }.items():  # fmt: skip
        counts = ("--counts", tmp_path / f"{name}.npz")
        result = command("sparsity", finished_run.folder, *counts, *options)
        assert result.returncode == 0, result.stderr
    alone, two, cluster = (np.load(tmp_path / f"{n}.npz") for n in ("here", "two", "cluster"))
    for name in alone.files:
        np.testing.assert_array_equal(two[name], alone[name], err_msg=name)
        np.testing.assert_array_equal(cluster[name], alone[name], err_msg=name)


def test_sparsity_mistakes_are_named(finished_run):
    folder = finished_run.folder
    check_fails_plainly(command("sparsity", folder, "--workers", 0), "workers: 0")
    both = ("--workers", 2, "--scheduler", "tcp://x:1")
    check_fails_plainly(command("sparsity", folder, *both), "give one")


# --- mistakes


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], ["nothing varies", "fig3", "--vary d_mlp=512,1024,2048"]),
        (["fig5"], ["unknown sweep 'fig5'", "did you mean 'fig"]),
        (["fig3", "--preset", "tiny"], ["leave out --preset"]),
        (["--vary", "d_mpl=1,2"], ["no setting 'd_mpl'", "did you mean 'd_mlp'"]),
        (["--vary", "d_mlp"], ["--vary d_mlp", "d_mlp=512,1024"]),
        (["--vary", "d_mlp="], ["d_mlp: '' is not allowed", "whole number from 1"]),
        (["--vary", "d_mlp=24,many"], ["d_mlp: 'many' is not allowed"]),
        (["--vary", "d_mlp=24,0"], ["d_mlp: 0 is not allowed"]),
        (["--vary", "d_mlp=24,24"], ["two runs would be called d_mlp=24,seed=0"]),
        (["--vary", "n_heads=1,3", "--preset", "tiny"], ["n_heads: 3 does not divide d_model 32"]),
        (["--vary", "init=gpt2,nanodoo"], ["init: 'nanodoo'", "did you mean 'nanodo'"]),
        (["--vary", "bias=true,maybe"], ["bias: 'maybe'", "true or false"]),
        (["--vary", "d_mlp=1", "--vary", "d_mlp=2"], ["d_mlp is given twice"]),
        (["--vary", "d_mlp=8,16", "--d-mlp", 8], ["d_mlp varies; leave out"]),
        (["--vary", "seed=1,2"], ["--seeds"]),
        (["--vary", "d_mlp=8", "--seeds", 0], ["seeds: 0"]),
        (["--vary", "d_mlp=8", "--workers", 0], ["workers: 0"]),
        (["--vary", "d_mlp=8", "--preset", "smal"], ["unknown preset 'smal'"]),
        (["--vary", "d_mlp=8", "--config", "no.toml"], ["no.toml"]),
        (["--vary", "d_mlp=8", "--out", "taken"], ["taken exists and is not an empty folder"]),
        (["--vary", "d_mlp=8,4194304", "--d-model", 65536], ["parameters needs", "GB"]),
        (["fig3", "--workers", 2, "--scheduler", "tcp://x:1"], ["give one"]),
        (["fig3", "--scheduler", "nonsense"], ["'nonsense'", "write it as tcp://HOST:PORT"]),
        (["fig3", "--scheduler", "tcp://x:many"], ["cannot reach", "tcp://x:many"]),
        (["fig3", "--scheduler", "tcp://nowhere.invalid:1"], ["cannot reach", "nowhere.invalid"]),
        (["fig3", "--scheduler", "tcp://127.0.0.1:9"], ["cannot reach", "tcp://127.0.0.1:9"]),
    ],
    ids=lambda x: " ".join(map(str, x)) if x and str(x[0]).startswith(("--", "fig")) else "",
)
def test_mistakes_are_named(tmp_path, arguments, words):
    if "--scheduler" in arguments and "--workers" not in arguments:
        pytest.importorskip("distributed", reason="distributed is not installed")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/mine.txt").write_text("keep me", encoding="utf-8")
    check_fails_plainly(command("sweep", *arguments, cwd=tmp_path), *words)
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


def test_a_scheduler_that_does_not_answer_is_reported(tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="distributed is not installed")
    monkeypatch.setattr(workers, "_REACH_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        result = command("sweep", "fig3", "--scheduler", address, cwd=tmp_path)
    check_fails_plainly(result, "cannot reach a Dask scheduler", "no answer")


def test_a_scheduler_without_workers_is_reported(tmp_path):
    distributed = pytest.importorskip("distributed", reason="distributed is not installed")
    with distributed.LocalCluster(n_workers=0, protocol="tcp://", dashboard_address=":0") as c:
        result = command("sweep", "fig3", "--scheduler", c.scheduler_address, cwd=tmp_path)
    check_fails_plainly(result, "has no workers", "dask worker")


def test_a_folder_with_another_sweep_is_refused(done, text_file):
    before = written(done / "s")
    check_fails_plainly(
        sweep(text_file, done, "--learning-rate", 0.5), "holds another sweep", "learning_rate: 0.01"
    )
    check_fails_plainly(sweep(text_file, done, "--seeds", 1), "2 seeds, not 1")
    assert written(done / "s") == before


def test_a_failed_run_is_named_at_the_end(text_file, tmp_path):
    result = command(
        "sweep", *QUICK[:2], "--vary", "learning_rate=10,0.001", "--seeds", 1, "--steps", 300,
        "--weight-decay", 10, "--clip-norm", 0, "--warmup-steps", 0, "--d-model", 16,
        "--probe-tokens", 64, "--n-ctx", 16, "--corpus", text_file, "--out", "s", cwd=tmp_path,
    )  # fmt: skip
    check_fails_plainly(result, "1 of 2 runs failed", "learning_rate=10.0,seed=0", "first in")
    assert "failed  learning_rate=10.0,seed=0" in result.stdout
    table = (tmp_path / "s/sweep.csv").read_text(encoding="utf-8")
    assert table.splitlines()[1].startswith("0.001,0,0,300")


def test_a_missing_distributed_package_is_named(tmp_path):
    (tmp_path / "distributed.py").write_text("raise ImportError", encoding="utf-8")
    root = str(Path(mr.__file__).parents[1])
    path = f"{tmp_path}{os.pathsep}{root}"
    result = process("sweep", "fig3", "--scheduler", "tcp://x:1", cwd=tmp_path, PYTHONPATH=path)
    check_fails_plainly(result, "distributed", "pip install 'minirelu[cluster]'")
