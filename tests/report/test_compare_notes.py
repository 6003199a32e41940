"""What ``minirelu compare`` says of runs that are not alike: each thing once."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from helpers import made_run

from minirelu.cli.main import cli

N_CTX = "sequences of different length"
TEXT = "different texts or vocabularies"
BATCH = "probes with batches of different size"
TOKENS = "probes of different size"


@pytest.mark.parametrize(
    "model, probe, reasons",
    [
        ({}, {}, []),
        ({"n_ctx": 32}, {}, [N_CTX]),
        ({"n_ctx": 32, "d_vocab": 99}, {}, [N_CTX, TEXT]),
        ({}, {"batch_tokens": 128}, [BATCH]),
        ({}, {"batch_tokens": 128, "probe_tokens": 128}, [BATCH, TOKENS]),
        ({"d_vocab": 99}, {"probe_tokens": 128}, [TEXT, TOKENS]),
    ],
)
def test_each_difference_is_said_once(finished_run, tmp_path, monkeypatch, model, probe, reasons):
    monkeypatch.chdir(tmp_path)
    made_run(tmp_path / "a", finished_run, [{"step": 0}])
    made_run(tmp_path / "b", finished_run, [{"step": 0, **probe}], model=model)
    result = CliRunner().invoke(cli, ["compare", "a", "b"], catch_exceptions=False)
    notes = [line for line in result.stdout.splitlines() if line.startswith("note")]
    for reason in (N_CTX, TEXT, BATCH, TOKENS):
        assert sum(reason in note for note in notes) == (reason in reasons), notes
    assert len(set(notes)) == len(notes)
    figures_left_out = [note for note in notes if "is left out" in note]
    assert ("note    loss is left out: val_loss cannot be compared" in figures_left_out) == (
        TEXT in reasons
    )
    assert len(notes) == len(reasons) + len(figures_left_out)


def test_one_reason_for_all_figures_is_one_note(finished_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = "abcdef"
    for name in names:
        made_run(tmp_path / name, finished_run, [{"step": 0}])
    result = CliRunner().invoke(cli, ["compare", *names], catch_exceptions=False)
    (note,) = [line[8:] for line in result.stdout.splitlines() if line.startswith("note")]
    assert note.startswith("fig1, fig5, loss are left out: a figure tells 5 runs apart at most")
