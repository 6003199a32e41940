"""What is damaged, incomplete or of another run is refused, by name."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import new_run, quick_settings, stop_after

import minirelu as mr
from minirelu.runs import files
from minirelu.runs.prepare import create_run


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "foreign"])
def test_damaged_checkpoints_are_refused_by_name(tmp_path, text_file, file, damage):
    run = new_run(tmp_path, text_file)
    mr.train(run)
    victim = run.checkpoints / "step_000012" / file
    content = bytearray(victim.read_bytes())
    if damage == "truncate":
        content = content[: len(content) // 2]
    elif damage == "flip":
        content[-9] ^= 1
    else:
        content = b"a file of something else"
    victim.write_bytes(content)
    with pytest.raises(ValueError, match=f"step_000012.*{file}.*damaged"):
        mr.train(mr.Run.open(run.folder))
    # what the message advises works
    shutil.rmtree(victim.parent)
    assert mr.train(mr.Run.open(run.folder))


def test_checkpoint_of_another_model_is_refused(tmp_path, text_file, finished_run):
    settings = quick_settings(text_file)
    other = dataclasses.replace(settings, model=dataclasses.replace(settings.model, d_mlp=31))
    run = create_run(other, tmp_path / "other")
    shutil.copytree(finished_run.checkpoints, run.checkpoints, dirs_exist_ok=True)
    with pytest.raises(ValueError, match="model.d_mlp: 32, not 31"):
        mr.train(run)
    with pytest.raises(ValueError, match="blocks.0.mlp.W_in has shape"):
        run.params()
    run.settings = dataclasses.replace(
        settings, model=dataclasses.replace(settings.model, d_mlp=1 << 22, d_model=1 << 16)
    )
    with pytest.raises(ValueError, match="the settings call for"):  # refused before memory is taken
        run.params()


@pytest.mark.parametrize("change", ["step", "metrics_bytes", "config"])
def test_changed_state_is_noticed(tmp_path, text_file, change):
    run = new_run(tmp_path, text_file)
    mr.train(run)
    file = run.checkpoints / "step_000012" / "state.json"
    state = json.loads(file.read_text(encoding="utf-8"))
    state[change] = 7
    file.write_text(json.dumps(state), encoding="utf-8")
    with pytest.raises(ValueError, match="state.json is damaged"):
        mr.train(run)


def test_checkpoint_under_the_name_of_another_step_is_noticed(tmp_path, text_file):
    run = new_run(tmp_path, text_file)
    mr.train(run, should_stop=stop_after(8))
    (run.checkpoints / "step_000008").rename(run.checkpoints / "step_000010")
    for use in (lambda: mr.train(run), lambda: run.params(10)):
        with pytest.raises(ValueError, match="step_000010.*it belongs to step 8"):
            use()


@pytest.mark.parametrize(
    "file, content",
    [
        ("metrics.jsonl", b"[]\n"),
        ("metrics.jsonl", b'{"kind": "probe"}\n'),
        ("metrics.jsonl", b"\xff\n"),
        ("metrics.jsonl", b'{"kind": "probe", "step": 1, "tokens": 1, "val_loss": 1.0, '
         b'"probe_tokens": 1, "batch_tokens": 1, "per_token": [1]}\n'),
        ("corpus.json", b"{}"),
        ("corpus.json", b"[" * 100_000),
        ("tokens/train.npy", b""),
        ("probe.npy", b"\x93NUMPY\x01\x00\x02\x00{("),
    ],
)  # fmt: skip
def test_damaged_files_are_named(tmp_path, finished_run, file, content):
    run = mr.Run(Path(shutil.copytree(finished_run.folder, tmp_path / "r")), finished_run.settings)
    (run.folder / file).write_bytes(content)
    with pytest.raises(ValueError, match=Path(file).name):
        assert [run.probes(), run.corpus, run.train_tokens, run.probe_tokens]


@pytest.mark.parametrize(
    "file, array",
    [
        ("tokens/train.npy", np.arange(9)),
        ("tokens/train.npy", np.arange(500.0)),
        ("tokens/train.npy", np.array(3)),
        ("probe.npy", np.arange(500)),
        ("probe.npy", np.zeros((3, 9), int)),
    ],
)
def test_token_files_of_the_wrong_kind_are_named(tmp_path, finished_run, file, array):
    run = mr.Run(Path(shutil.copytree(finished_run.folder, tmp_path / "r")), finished_run.settings)
    np.save(run.folder / file, array)
    with pytest.raises(ValueError, match=f"{Path(file).name} is damaged"):
        assert [run.train_tokens, run.probe_tokens]


def test_counts_of_another_model_are_named(tmp_path, finished_run):
    settings = finished_run.settings
    other = dataclasses.replace(settings, model=dataclasses.replace(settings.model, d_mlp=31))
    with pytest.raises(ValueError, match="step_000012.npz is damaged: tokens_on.0"):
        mr.Run(finished_run.folder, other).counts(12)


def test_a_state_file_of_another_kind_is_damaged(tmp_path, text_file):
    run = new_run(tmp_path, text_file)
    mr.train(run)
    (run.checkpoints / "step_000012" / "state.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ValueError, match="state.json is damaged"):
        mr.train(run)


def test_missing_metrics_are_noticed(tmp_path, text_file):
    run = new_run(tmp_path, text_file)
    mr.train(run, should_stop=stop_after(5))
    (run.folder / "metrics.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="metrics.jsonl is damaged: it is shorter"):
        mr.train(run)


def test_counts_file_that_claims_too_much_is_refused(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as z, z.open("tokens_on.0.npy", "w") as f:
        header = {"descr": "<i8", "fortran_order": False, "shape": (1 << 50,)}
        np.lib.format.write_array_header_1_0(f, header)
    with pytest.raises(ValueError, match="bad.npz is damaged: an array claims more"):
        files.read_arrays(tmp_path / "bad.npz")
    np.savez(tmp_path / "pickled.npz", a=np.array([object()]))
    with pytest.raises(ValueError, match="pickled.npz is damaged"):
        files.read_arrays(tmp_path / "pickled.npz")
