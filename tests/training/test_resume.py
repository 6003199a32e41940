"""A training that was stopped, crashed or killed ends with the bits of an undisturbed one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import new_run, result, stop_after

import minirelu as mr
from minirelu.runs import files
from minirelu.training import trainer


@pytest.fixture(scope="module")
def undisturbed(text_file, tmp_path_factory) -> tuple[bytes, list[dict]]:
    run = new_run(tmp_path_factory.mktemp("undisturbed"), text_file)
    assert mr.train(run)
    return result(run)


@pytest.mark.parametrize("at", [1, 3, 8, 11])
def test_a_resumed_run_equals_an_undisturbed_one(tmp_path, text_file, undisturbed, at):
    run = new_run(tmp_path, text_file)
    assert not mr.train(run, should_stop=stop_after(at))
    assert run.steps[-1] == at
    assert mr.train(mr.Run.open(run.folder))
    assert result(run) == undisturbed


def test_a_run_stopped_after_every_step_equals_an_undisturbed_one(tmp_path, text_file, undisturbed):
    run = new_run(tmp_path, text_file)
    for _ in range(11):
        assert not mr.train(mr.Run.open(run.folder), should_stop=lambda: True)
    assert mr.train(mr.Run.open(run.folder))
    assert result(run) == undisturbed


@pytest.mark.parametrize("seed", range(4))
def test_a_crash_at_any_write_does_not_change_the_result(
    tmp_path, text_file, undisturbed, monkeypatch, seed
):
    """Whatever write a crash falls on: the folder is valid, and the end is the same."""
    run = new_run(tmp_path, text_file)
    rng = np.random.default_rng(seed)

    class Crash(BaseException):
        pass

    left = [int(rng.integers(1, 60))]

    def crashing(f):
        def wrapped(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                raise Crash
            return f(*args, **kwargs)

        return wrapped

    with monkeypatch.context() as patch:
        for home, name in ((files, "sync"), (trainer, "write_record"), (shutil, "rmtree")):
            patch.setattr(home, name, crashing(getattr(home, name)))
        patch.setattr(Path, "unlink", crashing(Path.unlink))
        try:
            mr.train(run)
        except Crash:
            pass
    assert left[0] <= 0
    with open(run.folder / "metrics.jsonl", "ab") as f:
        f.write(b'{"kind": "train", "st')  # a line cut short
    mr.Run.open(run.folder).probes()
    assert mr.train(mr.Run.open(run.folder))
    assert result(run) == undisturbed


@pytest.mark.parametrize("moment", [3, 11, 22, 37])
def test_a_killed_process_does_not_change_the_result(tmp_path, text_file, undisturbed, moment):
    """The process ends at once, without any tidying up, in the middle of writing."""
    run = new_run(tmp_path, text_file)
    code = f"""
import os, minirelu as mr
from minirelu.runs import files
from minirelu.training import trainer
left = {moment}
def dying(f):
    def wrapped(*args, **kwargs):
        global left
        left -= 1
        if left == 0:
            os._exit(9)
        return f(*args, **kwargs)
    return wrapped
os.replace, os.rename, os.fsync = dying(os.replace), dying(os.rename), dying(os.fsync)
trainer.write_record = dying(trainer.write_record)
mr.train(mr.Run.open({str(run.folder)!r}))
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    assert mr.train(mr.Run.open(run.folder))
    assert result(run) == undisturbed
    assert [p.name for p in run.folder.rglob(".*")] == []  # what was half-written is gone


def test_a_second_training_of_a_finished_run_changes_nothing(tmp_path, text_file, undisturbed):
    run = new_run(tmp_path, text_file)
    assert mr.train(run) and mr.train(run)
    assert result(run) == undisturbed


def test_resume_refuses_changed_settings(tmp_path, text_file):
    run = new_run(tmp_path, text_file)
    mr.train(run, should_stop=stop_after(3))
    file = run.folder / "config.toml"
    changed = file.read_text(encoding="utf-8").replace("seed = 0", "seed = 1")
    file.write_text(changed, encoding="utf-8")
    with pytest.raises(ValueError, match="train.seed: 0, not 1"):
        mr.train(mr.Run.open(run.folder))


@pytest.mark.parametrize("missing", ["optimizer.safetensors", "state.json"])
def test_incomplete_checkpoint_is_written_again(tmp_path, text_file, undisturbed, missing):
    run = new_run(tmp_path, text_file)
    mr.train(run)
    (run.checkpoints / "step_000012" / missing).unlink()
    assert mr.train(run)
    assert result(run) == undisturbed


def test_a_run_is_trained_by_one_process_at_a_time(tmp_path, text_file):
    run = new_run(tmp_path, text_file)
    code = f"import minirelu as mr; mr.train(mr.Run.open({str(run.folder)!r}))"
    answers = []

    def second() -> bool:
        process = [sys.executable, "-c", code]
        answers.append(subprocess.run(process, capture_output=True, text=True).stderr)
        return True

    mr.train(run, should_stop=second)
    assert "is being trained by another process" in answers[0]
    assert mr.train(run)  # free again
