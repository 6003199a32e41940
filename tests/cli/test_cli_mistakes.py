"""Mistakes at the command line: one plain line each, exit code 2, nothing half-written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers import QUICK, check_fails_plainly, command, process

import minirelu as mr

pytestmark = pytest.mark.usefixtures("plain_figures", "guessed_steps")


def nothing_left(folder: Path, *but: str) -> None:
    assert sorted(p.name for p in folder.iterdir()) == sorted(but)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--n-heads", 3], ["n_heads: 3 does not divide d_model 32"]),
        (["--steps", -3], ["steps: -3", "from 1"]),
        (["--learning-rate", -1], ["learning_rate: -1"]),
        (["--steps", "many"], ["--steps", "many"]),
        (["--d-mlp", "3,4,5"], ["d_mlp: 3 numbers for 2 layers"]),
        (["--d-mlp", "wide"], ["d-mlp", "whole number"]),
        (["--micro-batches", 3], ["micro_batches: 3 does not divide batch_size 8"]),
        (["--preset", "smal"], ["unknown preset 'smal'", "did you mean 'small'"]),
        (["--lerning-rate", 1], ["--lerning-rate", "--learning-rate"]),
        (["--init", "gtp2"], ["gtp2", "gpt2"]),
        (["--config", "no.toml"], ["no.toml", "No such file"]),
        (["--config", "wrong.toml"], ["wrong.toml", "'stpes'", "did you mean 'steps'"]),
        (["--d-vocab", 100], ["d_vocab: 100 is too small"]),
        (["--n-ctx", 100000], ["too small", "n_ctx 100000"]),
        (["--corpus", "missing.txt"], ["no such corpus: missing.txt"]),
        (["--corpus", "empty.txt"], ["empty.txt is empty"]),
        (["--corpus", "short.txt"], ["short.txt is too small", "n_ctx 64"]),
        (["--corpus", "latin.txt"], ["latin.txt is not UTF-8 text (byte 3)"]),
        (["--corpus", "pictures"], ["no text in the folder pictures"]),
        (["--corpus", "hollow"], ["no text in the folder hollow"]),
        (["--corpus", "mixed"], ["bad.txt is not UTF-8"]),
        (["--out", "short.txt"], ["short.txt exists and is not an empty folder"]),
        (["--out", "pictures"], ["pictures exists and is not an empty folder"]),
        (["--out", "short.txt/x"], ["short.txt/x", "Not a directory"]),
        (["--resume", "nowhere"], ["no run in nowhere"]),
        (["--resume", "pictures"], ["no run in pictures"]),
        (["--out", "."], [". exists and is not an empty folder"]),
        (["--preset", ""], ["unknown preset ''"]),
        (["--d-mlp", 4194304, "--d-model", 65536], ["parameters needs", "GB"]),
        (["--config", "bad value.toml"], ["bad value.toml: steps: 'x' is not allowed"]),
        (["--config", "odd.toml"], ["unknown preset"]),
        (["--config", "deep.toml"], ["deep.toml is not valid TOML"]),
        (["--resume", "x", "--out", "y"], ["leave out --out"]),
    ],
    ids=lambda x: " ".join(map(str, x)) if str(x[0]).startswith("--") else "",
)
def test_mistakes_in_training_are_named(tmp_path, arguments, words):
    (tmp_path / "wrong.toml").write_text("[train]\nstpes = 3\n", encoding="utf-8")
    (tmp_path / "bad value.toml").write_text('[train]\nsteps = "x"\n', encoding="utf-8")
    (tmp_path / "odd.toml").write_text("preset = {a = 1}\n", encoding="utf-8")
    (tmp_path / "deep.toml").write_text("x = " + "[" * 20_000, encoding="utf-8")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "short.txt").write_text("too short\n", encoding="utf-8")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 and more\n" * 50)
    for folder in ("pictures", "hollow", "mixed"):
        (tmp_path / folder).mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"\x89PNG\0\0")
    (tmp_path / "mixed" / "good.txt").write_text("text\n" * 500, encoding="utf-8")
    (tmp_path / "mixed" / "bad.txt").write_bytes(b"caf\xe9\n" * 50)
    before = sorted(tmp_path.rglob("*"))
    own = {"--preset", "--resume"} & set(arguments) or "odd.toml" in arguments
    preset = [] if own else ["--preset", "tiny"]
    check_fails_plainly(command("train", *preset, *arguments, cwd=tmp_path), *words)
    assert [p for p in sorted(tmp_path.rglob("*")) if p not in before + [tmp_path / "runs"]] == []
    assert not list(tmp_path.glob("runs/*"))


def test_a_folder_that_holds_another_run_is_refused(trained):
    before = sorted(trained.rglob("*"))
    result = process("train", "--preset", "tiny", "--out", trained)
    check_fails_plainly(result, "holds a run already", "--resume")
    assert sorted(trained.rglob("*")) == before


def test_resume_with_changed_options_is_refused(trained):
    result = process("train", "--resume", trained, "--steps", 500)
    check_fails_plainly(result, "cannot change settings", "train.steps: 12, not 500")
    result = process("train", "--resume", trained, "--d-mlp", 64, "--n-layers", 2)
    line = check_fails_plainly(result, "model.d_mlp: 32, not 64")
    assert "n_layers" not in line  # the same as before: no change


def test_resuming_a_finished_run_is_not_a_mistake(trained):
    result = command("train", "--resume", trained, "--steps", 12)
    assert result.returncode == 0 and "report" in result.stdout


def test_damaged_checkpoint_is_refused(trained):
    file = trained / "checkpoints" / "step_000012" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    for arguments in (["sample", trained], ["train", "--resume", trained]):
        check_fails_plainly(command(*arguments), "step_000012", "damaged", "remove the folder")
    assert command("sample", trained, "--step", 8, "--tokens", 3).returncode == 0


def test_damaged_settings_and_tokenizer_are_named(trained):
    (trained / "tokenizer.json").write_text("{}", encoding="utf-8")
    check_fails_plainly(command("sample", trained), "tokenizer.json is not a tokenizer")
    (trained / "config.toml").write_text("[model]\nn_layers = 2\n", encoding="utf-8")
    check_fails_plainly(command("sample", trained), "[model] is not complete")


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--temperature", -1], "temperature: -1.0"),
        (["--temperature", "nan"], "temperature: nan"),
        (["--temperature", "inf"], "temperature: inf"),
        (["--top-k", -1], "top_k: -1"),
        (["--tokens", -1], "--tokens: -1"),
        (["--seed", -1], "--seed: -1"),
        (["--step", 5], "no weights of step 5; there are 0, 1, 2, 4, 8, 12"),
    ],
)
def test_mistakes_in_sampling_are_named(finished_run, arguments, words):
    check_fails_plainly(command("sample", finished_run.folder, *arguments), words)


def test_a_prompt_with_an_unknown_character_is_refused(trained):
    """A run folder whose tokenizer has no bytes to fall back on."""
    from tokenizers import Tokenizer, models

    inner = Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    inner.save(str(trained / "tokenizer.json"))
    check_fails_plainly(command("sample", trained, "--prompt", "ab€"), "no token for '€'")


def test_mistakes_in_exporting_are_named(trained, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("keep me", encoding="utf-8")
    result = command("export", trained, "--format", "opt", tmp_path / "taken")
    check_fails_plainly(result, "exists and is not an empty folder")
    assert (tmp_path / "taken" / "mine.txt").read_text(encoding="utf-8") == "keep me"
    check_fails_plainly(command("export", trained, "--format", "gpt2", "x"), "gpt2", "opt")
    check_fails_plainly(command("export", tmp_path, "--format", "opt", "x"), "no run in")
    check_fails_plainly(command("trian"), "trian", "train")
    check_fails_plainly(command("report", tmp_path / "taken"), "no run in")


@pytest.mark.skipif(os.name == "nt", reason="permissions differ on Windows")
def test_missing_write_permission_is_named(text_file, tmp_path, monkeypatch):
    """In this process, since root may write anywhere."""
    import click

    from minirelu.cli import main as main_module

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied", str(tmp_path / "x"))

    lines: list[str] = []
    monkeypatch.setattr(Path, "mkdir", refused)
    monkeypatch.setattr(click, "echo", lambda text="", **_: lines.append(str(text)))
    with pytest.raises(SystemExit) as e:
        main_module.main(
            ["train", *map(str, QUICK), "--corpus", str(text_file), "--out", str(tmp_path / "x")]
        )
    assert e.value.code == 2
    assert "Permission denied" in lines[-1] and str(tmp_path / "x") in lines[-1]
    assert not (tmp_path / "x").exists()


def test_a_nan_loss_stops_the_training_with_advice(text_file, tmp_path):
    result = command(
        "train", *QUICK[:2], "--corpus", text_file, "--out", "x", "--learning-rate", 10,
        "--weight-decay", 10, "--clip-norm", 0, "--warmup-steps", 0, "--steps", 500,
        cwd=tmp_path,
    )  # fmt: skip
    check_fails_plainly(result, "step", "first in", "lower --learning-rate")
    assert mr.Run.open(tmp_path / "x").steps
