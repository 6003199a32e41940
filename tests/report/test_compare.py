"""Runs side by side: the table by hand, what differs, what cannot be compared; and the commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers import check_fails_plainly, command, made_run

from minirelu.errors import UserError
from minirelu.figures import KINDS
from minirelu.report.compare import compare, heading, overlay, table


@pytest.fixture
def pair(finished_run, tmp_path):
    """Two runs of two layers; the second is wider, and lower in its last layer."""
    probes = [{"step": 12, "per_token": [0.5, 0.25], "val_loss": 5.0}]
    a = made_run(tmp_path / "a", finished_run, probes)
    probes = [{"step": 0}, {"step": 12, "per_token": [0.5, 0.125], "val_loss": 4.5}]
    b = made_run(tmp_path / "b", finished_run, probes, model={"d_mlp": 64}, train={"seed": 3})
    return [a, b]


def test_table_by_hand(pair):
    result = compare(pair)
    assert result["settings"] == [[], ["model.d_mlp: 64, not 32", "train.seed: 3, not 0"]]
    assert result["val_loss"] == {"values": [5.0, 4.5], "minus_first": [0.0, -0.5]}
    rows = result["measures"]["per_token"]
    assert rows["layer 0"] == {"values": [0.5, 0.5], "minus_first": [0.0, 0.0]}
    assert rows["layer 1"] == {"values": [0.25, 0.125], "minus_first": [0.0, -0.125]}
    assert rows["middle, mean"]["values"] == [None, None]
    assert rows["last - first"] == {"values": [-0.25, -0.375], "minus_first": [0.0, -0.125]}
    assert rows["last / first"] == {"values": [0.5, 0.25], "minus_first": [0.0, -0.25]}
    lines = table(result)
    at = lines.index("per_token: units on at a token, %")
    assert [line.split() for line in lines[at + 1 : at + 7]] == [
        ["A", "B", "B-A"],
        ["layer", "0", "50.0", "50.0", "+0.0"],
        ["layer", "1", "25.0", "12.5", "-12.5"],
        ["middle,", "mean", "-", "-", "-"],
        ["last", "-", "first", "-25.0", "-37.5", "-12.5"],
        ["last", "/", "first", "0.50", "0.25", "-0.25"],
    ]
    text = "\n".join(heading(result))
    for words in ("A  a, step 12", "B  b, step 12", "model.d_mlp: 64, not 32", "B 4.500"):
        assert words in text


def test_runs_of_other_depth_and_length_can_be_compared(finished_run, tmp_path, pair):
    probes = [{"step": 4, "per_token": [0.1, 0.2, 0.4]}]
    deep = made_run(tmp_path / "deep", finished_run, probes, model={"n_layers": 3})
    result = compare([pair[0], deep])
    rows = result["measures"]["per_token"]
    assert rows["layer 2"] == {"values": [None, 0.4], "minus_first": [None, None]}
    assert rows["middle, mean"]["values"] == [None, 0.2]
    assert result["notes"] == ["Not alike: probed last at steps 4, 12."]


def test_what_cannot_be_compared_is_left_out_and_said(finished_run, tmp_path, pair):
    change = {"model": {"n_ctx": 32, "d_vocab": 99}}
    other = made_run(tmp_path / "other", finished_run, [{"step": 12}], **change)
    result = compare([pair[0], other])
    assert {"per_token", "per_batch"} <= set(result["measures"]) and result["val_loss"] is None
    assert not {"per_sequence", "median_in_sequence_used"} & set(result["measures"])
    sentences = "\n".join(result["left_out"])
    assert (
        "per_sequence, median_in_sequence_used cannot be compared" in sentences
        and "different texts or vocab" in sentences
    )
    (tmp_path / "out").mkdir()
    pictures, _, left_out = overlay([pair[0], other], tmp_path / "out")
    assert list(pictures) == ["fig1", "fig5"]
    assert len(left_out) == 1 and left_out[0].startswith("loss is left out: ")


def test_overlay_shows_each_run_even_seeds(finished_run, tmp_path):
    runs = [
        made_run(tmp_path / f"s{seed}", finished_run, [{"step": 0}], train={"seed": seed})
        for seed in (0, 1)
    ]
    _, data, _ = overlay(runs, tmp_path)
    series = [each["series"] for each in data["fig5"]["panels"][0]["lines"]]
    assert series == ["s0", "s0", "s1", "s1"]


def test_comparing_one_run_is_refused(finished_run):
    with pytest.raises(UserError, match="two runs or more; 1 given"):
        compare([finished_run])


def test_compare_prints_and_draws_the_differences(pair, tmp_path):
    result = command("compare", "a", "b", "--json", "x.json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "B  b, step 12" in result.stdout and "-12.5" in result.stdout
    numbers = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    assert numbers["measures"] == compare(pair)["measures"]
    assert numbers["figures"]["fig1"] == KINDS["fig1"].data(pair, apart=True)
    for name in ("fig1.png", "fig5.svg", "loss.png"):
        assert (tmp_path / "compare" / name).is_file()
    check_fails_plainly(command("compare", "a", cwd=tmp_path), "two runs or more")
    check_fails_plainly(command("compare", "a", "no", cwd=tmp_path), "no run in no")


def test_figure_command_draws_and_writes_numbers(finished_run, tmp_path):
    folder = Path(shutil.copytree(finished_run.folder, tmp_path / "run"))
    result = command("figure", "fig5", "run", "--json", "x.json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (folder / "figures/fig5.png").is_file() and "read it" in result.stdout
    data = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    assert data["panels"] == KINDS["fig5"].data([finished_run])["panels"]
    shutil.copytree(folder, tmp_path / "other")
    assert command("figure", "loss", "run", "other", cwd=tmp_path).returncode == 0
    assert (tmp_path / "loss.svg").is_file()
    assert command("figure", "early", "run", "--out", "x/y.png", cwd=tmp_path).returncode == 0
    assert (tmp_path / "x/y.png").is_file() and (tmp_path / "x/y.svg").is_file()
    for arguments in (("figure",), ("figure", "--list")):
        result = command(*arguments, cwd=tmp_path)
        assert result.returncode == 0
        assert [line.split()[0] for line in result.stdout.splitlines()[:-1]] == list(KINDS)


def test_mistakes_of_the_figure_command_are_named(finished_run, tmp_path):
    run = finished_run.folder
    no_probes = tmp_path / "new"
    shutil.copytree(run, no_probes)
    (no_probes / "metrics.jsonl").write_text("", encoding="utf-8")
    for arguments, words in (
        (("heatmpa", run), ["no figure 'heatmpa'", "did you mean 'heatmap'?"]),
        (("fig1",), ["fig1 takes one run, or several; 0 given"]),
        (("fig3", run), ["fig3 takes several runs"]),
        (("fan", run, no_probes), ["fan takes one run; 2 given"]),
        (("fig1", no_probes), ["no probes yet", "train --resume"]),
        (("rarefaction", no_probes), ["no probes yet"]),
        (("fig1", run, "--out", "x.pdf"), ["written as .png and .svg"]),
        (("fig1", tmp_path / "nothing"), ["no run in"]),
    ):
        check_fails_plainly(command("figure", *arguments, cwd=tmp_path), *words)
    assert not (tmp_path / "x.png").exists()
