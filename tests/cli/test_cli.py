"""The command line as a user meets it, in processes of its own: success, and every mistake."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers import check_fails_plainly, command

import minirelu as mr
from minirelu.cli.main import cli
from minirelu.errors import UserError

QUICK = ("--preset", "tiny", "--steps", 4, "--probe-tokens", 256, "--n-ctx", 16, "--d-vocab", 300)


@pytest.fixture
def trained(finished_run, tmp_path) -> Path:
    """A finished run of one's own."""
    return Path(shutil.copytree(finished_run.folder, tmp_path / "trained"))


# --- what works


def test_readme_commands(tmp_path):
    """The two commands of the README, with preset tiny, in an empty folder."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^bin/minirelu (\w+)(.*)$", readme, re.MULTILINE)
    assert [verb for verb, _ in lines[:2]] == ["train", "sample"], "the README's two commands"
    result = command("train", "--preset", "tiny", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert re.search(r"^ +better than unigram", result.stdout, re.MULTILINE)
    assert (tmp_path / "runs/tiny/report.html").is_file()
    assert "minirelu sample" in result.stdout  # names the next command
    import shlex

    arguments = [a.replace("runs/small", "runs/tiny") for a in shlex.split(lines[1][1])]
    result = command("sample", *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    prompt = arguments[arguments.index("--prompt") + 1]
    assert result.stdout.startswith(prompt) and len(result.stdout) > len(prompt) + 20


def test_train_says_what_it_does(text_file, tmp_path):
    result = command("train", *QUICK, "--corpus", text_file, "--out", "x", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for words in ("2 layers", "to beat", "time", "per token", "report", "next"):
        assert words in result.stdout
    assert (
        "so d_vocab is that, not 300" in result.stdout
    )  # ten words give fewer tokens than asked for
    assert re.search(r"^ +4 +\d\.\d{3} ", result.stdout, re.MULTILINE)  # the last probe
    run = mr.Run.open(tmp_path / "x")
    assert run.settings.train.steps == 4 and run.config.d_vocab < 300


def test_second_run_gets_a_folder_of_its_own(text_file, tmp_path):
    for name in ("runs/tiny", "runs/tiny-2"):
        assert command("train", *QUICK, "--corpus", text_file, cwd=tmp_path).returncode == 0
        assert (tmp_path / name / "report.html").is_file()


def test_settings_from_a_run_can_be_used_again(trained, tmp_path):
    result = command("train", "--config", trained / "config.toml", "--out", tmp_path / "again")
    assert result.returncode == 0, result.stderr
    a, b = mr.Run.open(trained), mr.Run.open(tmp_path / "again")
    assert a.settings == b.settings and a.params().flat.tolist() == b.params().flat.tolist()


def test_report_and_export_and_sample(trained, tmp_path):
    result = command("report", trained)
    assert result.returncode == 0 and "report.html" in result.stdout
    result = command("export", trained, "--format", "opt", tmp_path / "opt")
    assert result.returncode == 0 and (tmp_path / "opt/model.safetensors").is_file()
    one = command("sample", trained, "--prompt", "the cat", "--tokens", 20, "--seed", 5)
    two = command("sample", trained, "--prompt", "the cat", "--tokens", 20, "--seed", 5)
    assert one.returncode == 0 and one.stdout == two.stdout and one.stdout.startswith("the cat")
    assert command("sample", trained, "--tokens", 5, "--step", 8).returncode == 0


def test_sample_cannot_steer_the_terminal(trained):
    result = command("sample", trained, "--prompt", "a\x1b[31mb", "--tokens", 1)
    assert result.returncode == 0 and "\x1b" not in result.stdout
    assert r"a\x1b[31mb" in result.stdout


@pytest.mark.skipif(os.name == "nt", reason="pipes are different there")
def test_a_reader_that_leaves_does_not_end_the_training(text_file, tmp_path):
    root = str(Path(mr.__file__).parents[1])
    arguments = " ".join(map(str, QUICK))
    line = f"{sys.executable} -m minirelu train {arguments} --corpus {text_file} --out x | head -1"
    subprocess.run(
        line, shell=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": root}, timeout=120
    )
    assert mr.Run.open(tmp_path / "x").steps[-1] == 4 and (tmp_path / "x/report.html").is_file()


def test_run_folders_are_no_text_to_learn_from(text_file, tmp_path):
    for name in ("a.txt", "b.txt"):
        shutil.copy(text_file, tmp_path / name)
    for _ in range(2):
        result = command("train", *QUICK, "--corpus", ".", cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    one, two = (mr.Run.open(tmp_path / f"runs/{name}").corpus for name in ("tiny", "tiny-2"))
    assert one["train_bytes"] == two["train_bytes"] and two["skipped_files"] > 0


def test_a_hostile_run_cannot_steer_the_terminal(trained):
    import json

    file = trained / "corpus.json"
    facts = json.loads(file.read_text(encoding="utf-8"))
    facts["corpus"] = "\x1b]0;title\x07\x1b[31mred"
    facts["baselines"]["\x1b[31m"] = 1.0
    file.write_text(json.dumps(facts), encoding="utf-8")
    result = command("train", "--resume", trained)
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout + result.stderr
    assert r"\x1b]0;title\x07\x1b[31mred" in result.stdout


def test_help_has_an_example_for_every_command():
    assert command().returncode == 0
    for name in ("train", "report", "sample", "export"):
        result = command(name, "--help")
        lines = result.stdout.split("Example")[1].splitlines()
        assert result.returncode == 0 and lines[1].strip().startswith(f"minirelu {name}")
        assert r"\b" not in result.stdout
    assert "--d-mlp" in command("train", "--help").stdout


@pytest.mark.parametrize(
    "arguments, shown",
    [
        ([], "Optimizer steps. (small: 700)"),
        (["--preset", "tiny"], "Optimizer steps. (tiny: 400)"),
        (["--preset=paper", "--d-mlp", "wrong"], "Optimizer steps. (paper: 700)"),
        (["--config", "my.toml"], "Optimizer steps. (my.toml: 77)"),
        (["--preset", "wide", "--config", "my.toml"], "one per layer. (my.toml: 8192)"),
    ],
)
@pytest.mark.parametrize("name", ["train", "estimate", "sweep"])
def test_help_shows_the_settings_of_the_preset_or_file(
    tmp_path, monkeypatch, name, arguments, shown
):
    (tmp_path / "my.toml").write_text('preset = "tiny"\n[train]\nsteps = 77\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for given in ([*arguments, "--help"], ["-h", *arguments]):
        result = CliRunner().invoke(cli, [name, *given])
        assert result.exit_code == 0 and shown in " ".join(result.output.split())


def test_help_of_an_unknown_preset_names_those_there_are():
    result = CliRunner().invoke(cli, ["train", "--help", "--preset", "tyni"])
    assert isinstance(result.exception, UserError)
    assert "unknown preset 'tyni'; there are tiny, small" in str(result.exception)


def test_short_descriptions_of_the_commands_are_whole():
    help = CliRunner().invoke(cli, ["--help"], terminal_width=78).output
    for line in help.split("Commands:")[1].strip().splitlines():
        name, description = line.split(maxsplit=1)
        assert name in cli.commands and description.endswith(".") and "..." not in description


def test_import_and_help_load_nothing_heavy():
    code = (
        "import sys; from minirelu.cli.main import cli; "
        "cli.main(['train', '--help'], standalone_mode=False); "
        "print([m for m in ('numba', 'matplotlib', 'tokenizers') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals are different there")
def test_ctrl_c_saves_and_says_how_to_go_on(text_file, tmp_path):
    arguments = ["train", *QUICK[:2], "--corpus", text_file, "--steps", 100000, "--out", "x"]
    process = subprocess.Popen(
        [sys.executable, "-m", "minirelu", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(mr.__file__).parents[1])},
    )  # fmt: skip
    metrics = tmp_path / "x" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") > 12):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    assert "go on with:  minirelu train --resume x" in out
    run = mr.Run.open(tmp_path / "x")
    assert run.steps[-1] == run.metrics("train")[-1]["step"] > 8


def test_interrupted_run_goes_on(text_file, tmp_path):
    from helpers import quick_settings

    from minirelu.runs.prepare import create_run

    run = create_run(quick_settings(text_file), tmp_path / "x")
    mr.train(run, should_stop=lambda: len(run.metrics("train")) >= 5)
    result = command("train", "--resume", "x", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert run.steps[-1] == 12 and (run.folder / "report.html").is_file()


# --- mistakes: one plain line each, exit code 2, nothing half-written


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
def test_mistakes_in_training(tmp_path, arguments, words):
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


def test_folder_that_holds_another_run(trained):
    before = sorted(trained.rglob("*"))
    result = command("train", "--preset", "tiny", "--out", trained)
    check_fails_plainly(result, "holds a run already", "--resume")
    assert sorted(trained.rglob("*")) == before


def test_resume_with_changed_options(trained):
    result = command("train", "--resume", trained, "--steps", 500)
    check_fails_plainly(result, "cannot change settings", "train.steps: 12, not 500")
    result = command("train", "--resume", trained, "--d-mlp", 64, "--n-layers", 2)
    line = check_fails_plainly(result, "model.d_mlp: 32, not 64")
    assert "n_layers" not in line  # the same as before: no change


def test_finished_run_resumed_is_no_mistake(trained):
    result = command("train", "--resume", trained, "--steps", 12)
    assert result.returncode == 0 and "report" in result.stdout


def test_damaged_checkpoint(trained):
    file = trained / "checkpoints" / "step_000012" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    for arguments in (["sample", trained], ["train", "--resume", trained]):
        check_fails_plainly(command(*arguments), "step_000012", "damaged", "remove the folder")
    assert command("sample", trained, "--step", 8, "--tokens", 3).returncode == 0


def test_damaged_settings_and_tokenizer(trained):
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
def test_mistakes_in_sampling(finished_run, arguments, words):
    check_fails_plainly(command("sample", finished_run.folder, *arguments), words)


def test_prompt_the_tokenizer_lacks(trained):
    """A run folder whose tokenizer has no bytes to fall back on."""
    from tokenizers import Tokenizer, models

    inner = Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    inner.save(str(trained / "tokenizer.json"))
    check_fails_plainly(command("sample", trained, "--prompt", "ab€"), "no token for '€'")


def test_mistakes_in_exporting(trained, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("keep me", encoding="utf-8")
    result = command("export", trained, "--format", "opt", tmp_path / "taken")
    check_fails_plainly(result, "exists and is not an empty folder")
    assert (tmp_path / "taken" / "mine.txt").read_text(encoding="utf-8") == "keep me"
    check_fails_plainly(command("export", trained, "--format", "gpt2", "x"), "gpt2", "opt")
    check_fails_plainly(command("export", tmp_path, "--format", "opt", "x"), "no run in")
    check_fails_plainly(command("trian"), "trian", "train")
    check_fails_plainly(command("report", tmp_path / "taken"), "no run in")


@pytest.mark.skipif(os.name == "nt", reason="permissions are different there")
def test_no_write_permission(text_file, tmp_path, monkeypatch):
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


def test_loss_that_turns_nan(text_file, tmp_path):
    result = command(
        "train", *QUICK[:2], "--corpus", text_file, "--out", "x", "--learning-rate", 10,
        "--weight-decay", 10, "--clip-norm", 0, "--warmup-steps", 0, "--steps", 500,
        cwd=tmp_path,
    )  # fmt: skip
    check_fails_plainly(result, "step", "first in", "lower --learning-rate")
    assert mr.Run.open(tmp_path / "x").steps
