"""The command line as a user meets it, in processes of its own: what works."""

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
from helpers import QUICK, command, process, quick_settings

import minirelu as mr

pytestmark = pytest.mark.usefixtures("plain_figures", "guessed_steps")


def test_readme_commands(tmp_path):
    """The two commands of the README, with preset tiny, in an empty folder."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^bin/minirelu (\w+)(.*)$", readme, re.MULTILINE)
    assert [verb for verb, _ in lines[:2]] == ["train", "sample"], "the README's two commands"
    result = process("train", "--preset", "tiny", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert re.search(r"^ +better than unigram", result.stdout, re.MULTILINE)
    assert (tmp_path / "runs/tiny/report.html").is_file()
    assert "minirelu sample" in result.stdout  # names the next command
    import shlex

    arguments = [a.replace("runs/small", "runs/tiny") for a in shlex.split(lines[1][1])]
    result = process("sample", *arguments, cwd=tmp_path)
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


def test_a_second_run_gets_a_new_folder(text_file, tmp_path):
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


@pytest.mark.skipif(os.name == "nt", reason="pipes differ on Windows")
def test_a_closed_pipe_does_not_end_the_training(text_file, tmp_path):
    root = str(Path(mr.__file__).parents[1])
    arguments = " ".join(map(str, QUICK))
    line = f"{sys.executable} -m minirelu train {arguments} --corpus {text_file} --out x | head -1"
    subprocess.run(
        line, shell=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": root}, timeout=120
    )
    assert mr.Run.open(tmp_path / "x").steps[-1] == 4 and (tmp_path / "x/report.html").is_file()


def test_run_folders_are_not_read_as_a_corpus(text_file, tmp_path):
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


@pytest.mark.skipif(os.name == "nt", reason="signals differ on Windows")
def test_ctrl_c_saves_and_says_how_to_go_on(text_file, tmp_path):
    arguments = ["train", *QUICK[:2], "--corpus", text_file, "--steps", 100000, "--out", "x"]
    process = subprocess.Popen(
        [sys.executable, "-m", "minirelu", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(mr.__file__).parents[1])},
    )  # fmt: skip
    metrics = tmp_path / "x" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") > 16):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    assert "go on with:  minirelu train --resume x" in out
    run = mr.Run.open(tmp_path / "x")
    assert run.steps[-1] == run.metrics("train")[-1]["step"] > 8


def test_resume_continues_an_interrupted_run(text_file, tmp_path):
    from minirelu.runs.prepare import create_run

    run = create_run(quick_settings(text_file), tmp_path / "x")
    mr.train(run, should_stop=lambda: len(run.metrics("train")) >= 5)
    result = command("train", "--resume", "x", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert run.steps[-1] == 12 and (run.folder / "report.html").is_file()
