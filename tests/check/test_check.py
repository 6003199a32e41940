"""``minirelu check``: all agree as they are, and a bug planted in a copy is named."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import check_fails_plainly, command, new_run

import minirelu as mr
from minirelu.check.gradients import cache_rows, gradient_rows
from minirelu.check.kernels import kernel_rows
from minirelu.compute import refuse_disagreement
from minirelu.errors import UserError

ROOT = Path(mr.__file__).parent


@pytest.mark.parametrize("rows", [gradient_rows, cache_rows, kernel_rows])
def test_every_comparison_agrees(rows):
    comparisons = list(rows())
    assert comparisons and [row for row in comparisons if not row.fine] == []


def test_the_command_prints_a_table_and_leaves_with_0(tmp_path):
    done = command("check", "--all", "--json", tmp_path / "rows.json")
    assert done.returncode == 0, done.stdout
    rows = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    assert all(row["fine"] and 0 <= row["error"] <= row["limit"] for row in rows)
    for words in ("layernorm", "whole model with topk", "step with relu2, sparse", "cache of samp"):
        assert words in done.stdout


# (file, what stands there, what is put there, words of the table, words of train's refusal)
BUGS = {
    "model": (
        "model/layernorm.py", "dscale = -(dnormal", "dscale = (dnormal",
        "layernorm                           dx", "layernorm, kernel: dx",
    ),
    "model, forward": (
        "model/attention.py", "q / math.sqrt(D)) @ by_head(k)", "q / D) @ by_head(k)",
        "attention", "attention, kernel: z",
    ),
    "kernel": (
        "kernels/attention.py", "pattern[key, j] * (dscores[key, j] - delta[j])",
        "pattern[key, j] * dscores[key, j]", "attention, kernel", "attention, kernel: dQ",
    ),
    "optimizer": (
        "training/optimizers.py", "v[:] = beta2 * v + (1 - beta2) * g * g",
        "v[:] = beta2 * v + (1 - beta1) * g * g", "adamw, kernel", "adamw, kernel: p",
    ),
}  # fmt: skip


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_named_and_trained_only_when_asked_for(bug, text_file, tmp_path):
    file, right, wrong, in_table, in_refusal = BUGS[bug]
    shutil.copytree(ROOT, tmp_path / "minirelu", ignore=shutil.ignore_patterns("__pycache__"))
    text = (tmp_path / "minirelu" / file).read_text(encoding="utf-8")
    assert right in text
    (tmp_path / "minirelu" / file).write_text(text.replace(right, wrong), encoding="utf-8")

    def in_copy(*arguments: object) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "minirelu", *map(str, arguments)],
            capture_output=True, encoding="utf-8", cwd=tmp_path, timeout=300,
            env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONIOENCODING": "utf-8"},
        )  # fmt: skip

    table = in_copy("check")
    assert table.returncode == 1
    assert any(in_table in line and "DIFFERS" in line for line in table.stdout.splitlines())
    assert f"look at  {file}" in table.stdout or file in table.stdout.split("look at")[1]

    settings = "--preset tiny --steps 2 --probe-tokens 64 --corpus".split()
    refused = in_copy("train", *settings, text_file, "--out", "refused")
    check_fails_plainly(refused, in_refusal, "--compute reference", file.split("/")[1])
    assert not (tmp_path / "refused").exists()
    if bug == "model":
        assert in_copy("train", *settings, text_file, "--compute", "auto").returncode == 0
        assert in_copy("train", *settings, text_file, "--compute", "reference").returncode == 0


def test_a_wrong_gradient_of_an_activation_function_without_kernels_is_refused(
    text_file, tmp_path, monkeypatch
):
    from minirelu.model import activation_functions as home

    def cube_forward(pre):
        return pre**3

    monkeypatch.setattr(home, "cube_forward", cube_forward, raising=False)
    monkeypatch.setattr(home, "cube_backward", lambda dpost, pre: dpost * pre**2, raising=False)
    run = new_run(tmp_path, text_file, steps=1)
    config = dataclasses.replace(run.config)
    object.__setattr__(config, "act_fn", "cube")  # a choice that was made when config was imported
    with pytest.raises(UserError, match="backward of cube is not that of its forward: cube, dpre"):
        refuse_disagreement(config)
    monkeypatch.setattr(home, "cube_backward", lambda dpost, pre: dpost * 3 * pre**2)
    refuse_disagreement(config)
