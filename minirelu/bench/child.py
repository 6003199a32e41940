"""What must be measured in a process of its own: the first step, and the peak of memory.

``python -m minirelu.bench.child first|ours|torch D_MLP``, or ``run FOLDER``: prints JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def run_child(what: str, of: int | str, **environment: str) -> dict[str, Any]:
    """Run this file in a fresh process, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "minirelu.bench.child", what, str(of)],
        env={**os.environ, **environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def first_steps(d_mlp: int = 2048) -> dict[str, dict[str, float]]:
    """Seconds of a process's first training step, with no compiled code on disk, and with it."""
    with tempfile.TemporaryDirectory() as cache:
        return {
            state: run_child("first", d_mlp, NUMBA_CACHE_DIR=cache) for state in ("cold", "warm")
        }


def peak_memory(d_mlp: int, peers: list[str]) -> dict[str, float] | None:
    """Peak memory of a process that trains, in bytes, for us and for PyTorch; None on Windows."""
    if os.name == "nt":
        return None
    peaks = {"minirelu": run_child("ours", d_mlp)["peak"]}
    if "torch" in peers:
        peaks["torch"] = run_child("torch", d_mlp)["peak"]
    return peaks


def peak_of_run(folder: Path) -> float | None:
    """Peak memory of a process that trains a run a few steps on, in bytes; None on Windows.

    Nothing is written.
    """
    return None if os.name == "nt" else run_child("run", str(folder.resolve()))["peak"]


def _peak_bytes() -> int:
    """Peak of this process; Linux's ``getrusage`` would count what its parent had before it."""
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def train_on(folder: str) -> None:
    """Make three steps after a run's last one."""
    from minirelu.compute import Workspace
    from minirelu.runs.checkpoint import new_slots
    from minirelu.runs.run import Run
    from minirelu.training.state import State
    from minirelu.training.trainer import train_step

    run = Run.open(folder)
    state, workspace = State(run.steps[-1], run.params(), new_slots(run.settings)), Workspace()
    for _ in range(3):
        train_step(run, state, workspace)
    print(json.dumps({"peak": _peak_bytes()}))


def main(what: str, d_mlp: int) -> None:
    """Do what the parent asked for."""
    start = time.perf_counter()
    from minirelu.bench import peers
    from minirelu.bench.benchmarks import OurStep, made_batch, model_of_width
    from minirelu.config import TrainConfig
    from minirelu.model.parameters import init_params

    config = model_of_width(d_mlp)
    params, (tokens, targets) = init_params(config), made_batch(config)
    if what == "torch":
        step = peers.step("torch", params, tokens, targets, config, TrainConfig(), 1e-3)
        del params
    else:
        step = OurStep(params, tokens, targets, config, TrainConfig(), 1e-3)
    ready = time.perf_counter()
    step()
    if what == "first":
        done = time.perf_counter()
        print(json.dumps({"imports_and_weights": ready - start, "first_step": done - ready}))
        return
    for _ in range(2):
        step()
    print(json.dumps({"peak": _peak_bytes()}))


if __name__ == "__main__":
    if sys.argv[1] == "run":
        train_on(sys.argv[2])
    else:
        main(sys.argv[1], int(sys.argv[2]))
