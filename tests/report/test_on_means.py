"""What "on" means is said wherever units are counted, if the activation has no exact zeros."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from helpers import made_run, quick_settings

import minirelu as mr
from minirelu.cli.main import cli
from minirelu.cli.train import _show_results
from minirelu.figures import FIGURES, KINDS
from minirelu.report.compare import compare
from minirelu.runs.prepare import create_run
from minirelu.sparsity.measures import what_on_means

SENTENCE = "On: activation above 0 (gelu has no exact zeros)."


@pytest.fixture(scope="module")
def gelu_run(text_file, tmp_path_factory) -> mr.Run:
    """A finished run; for reading only, but for its report."""
    tables = quick_settings(text_file, steps=2).tables()
    tables["model"]["act_fn"] = "gelu"
    run = create_run(mr.Config.from_tables(tables), tmp_path_factory.mktemp("gelu") / "run")
    assert mr.train(run)
    return run


def test_only_functions_without_zeros_get_the_sentence():
    sentences = {}
    for act_fn in ("relu", "relu2", "topk", "gelu", "leaky_relu"):
        sentences[act_fn] = what_on_means(mr.ModelConfig(1, 1, 2, 4, 2, 5, act_fn=act_fn, act_k=2))
    assert [act_fn for act_fn, sentence in sentences.items() if sentence] == ["gelu", "leaky_relu"]
    assert sentences["gelu"] == SENTENCE


def test_train_and_report_say_what_on_means(gelu_run, finished_run, tmp_path, monkeypatch, capsys):
    _show_results(gelu_run)
    assert SENTENCE in capsys.readouterr().out.splitlines()
    assert SENTENCE in (gelu_run.folder / "report.html").read_text(encoding="utf-8")
    monkeypatch.setattr("minirelu.cli.train.write_page", lambda run: "page")
    _show_results(finished_run)
    assert "On:" not in capsys.readouterr().out


def test_sparsity_says_what_on_means(gelu_run, finished_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for run, is_said, on_means in (
        (gelu_run, True, "above 0"),
        (finished_run, False, "exactly non-zero"),
    ):
        arguments = ["sparsity", str(run.folder), "--json", "x.json", "--csv", "x.csv"]
        result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
        assert (SENTENCE in result.stdout.splitlines()) == is_said
        with open("x.json", encoding="utf-8") as f:
            assert json.load(f)["on_means"] == on_means
        with open("x.csv", encoding="utf-8") as f:
            assert on_means in f.read()


@pytest.mark.parametrize("name", FIGURES)
def test_figures_say_what_on_means(gelu_run, finished_run, name):
    kind = KINDS[name]
    data = kind.data([gelu_run])
    assert data["runs"][0]["on_means"] == "above 0"
    assert data["notes"].count(SENTENCE) == (0 if name == "loss" else 1)
    assert kind.draw(data)
    assert not any("On:" in note for note in kind.data([finished_run])["notes"])


def test_several_runs_say_what_on_means_once(finished_run, tmp_path):
    runs = [
        made_run(tmp_path / act_fn, finished_run, [{"step": 0}], model={"act_fn": act_fn})
        for act_fn in ("gelu", "relu", "leaky_relu")
    ]
    both = [SENTENCE, SENTENCE.replace("gelu", "leaky_relu")]
    assert KINDS["fig1"].data([*runs, runs[0]], apart=True)["notes"] == both
    assert compare([*runs, runs[0]])["notes"] == both
