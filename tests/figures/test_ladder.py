"""A ladder of widths: every point is what runs measured; and which runs it refuses."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from helpers import check_fails_plainly, command, drawn, new_run

import minirelu as mr
from minirelu.figures import KINDS
from minirelu.figures.panels import draw_panels
from minirelu.figures.runs import open_runs
from minirelu.runs.prepare import create_run
from minirelu.runs.run import Run
from minirelu.specificity.layers import NUMBERS
from minirelu.specificity.measure import store


@pytest.fixture
def runs(finished_sweep, tmp_path) -> list[Run]:
    """Two widths, two seeds; a copy, to write to."""
    return open_runs([shutil.copytree(finished_sweep[0], tmp_path / "sweep")])


def by_width(runs: list[Run], value) -> list[list[float]]:
    """What the seeds of each width measured."""
    return [[value(run) for run in runs if run.config.d_mlp == F] for F in (24, 40)]


def test_every_point_is_what_the_runs_measured(runs):
    data = KINDS["ladder"].data(runs[::-1])  # whatever order they come in
    loss, per_token, per_sequence, per_batch, used, silent = data["panels"]
    values = {
        loss["title"]: (lambda run, l: run.probes()[-1]["val_loss"], loss),
        "per token": (lambda run, l: run.probes()[-1]["per_token"][l], per_token),
        "per sequence": (lambda run, l: run.probes()[-1]["per_sequence"][l], per_sequence),
        "per batch": (lambda run, l: run.probes()[-1]["per_batch"][l], per_batch),
        "used": (
            lambda run, l: run.probes()[-1]["per_batch"][l] * run.config.d_mlp,
            used,
        ),
        "silent": (lambda run, l: np.mean(run.counts(12).tokens_on[l] == 0), silent),
    }
    for name, (value, panel) in values.items():
        assert panel["x"]["ticks"] == [[24, "24"], [40, "40"]] and panel["x"]["scale"] == "log"
        points = [each for each in panel["lines"] if each["look"] == "points"]
        assert len(points) == (1 if panel is loss else 2)
        for l, each in enumerate(points):
            expected = by_width(runs, lambda run, l=l, value=value: value(run, l))
            assert each["x"] == [24, 40], name
            assert each["y"] == pytest.approx([np.mean(v) for v in expected]), name
            assert each["low"] == [min(v) for v in expected], name
            assert each["high"] == [max(v) for v in expected], name
            assert each["layer"] == (None if panel is loss else [l, 2])
    assert used["y"]["scale"] == "log"
    assert drawn(draw_panels(data))[4].get_yscale() == "log"
    assert any("Means of 2 seeds" in note for note in data["notes"])
    assert any("after minirelu specificity" in note for note in data["notes"])


def test_the_table_has_what_matters_most_as_numbers_and_goes_to_a_page(runs, tmp_path):
    head, *rows = KINDS["ladder"].data(runs)["table"]
    assert head[:3] == ["d_mlp", "loss", "layer 0, token"] and head[-1] == "layer 1, batch"
    for row, values in zip(rows, by_width(runs, lambda run: run.probes()[-1]["per_batch"][1]),
                           strict=True):  # fmt: skip
        mean, low, high = (100 * f(values) for f in (np.mean, min, max))
        assert row[-1] == f"{mean:.1f} ({low:.1f} to {high:.1f})"
    page = tmp_path / "page.md"
    page.write_text("<!-- dose: begin -->\n<!-- dose: end -->\n", encoding="utf-8")
    done = command("figure", "ladder", *(run.folder for run in runs), "--page", f"{page}#dose",
                   "--out", tmp_path / "f.png")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "| d_mlp | loss |" in page.read_text(encoding="utf-8")
    assert (tmp_path / "page" / "dose.png").is_file() and rows[0][1] in done.stdout


def measured(run: Run, step: int, tokens: int, nats: float) -> None:
    """Store what ``minirelu specificity`` would, with these nats in the first layer."""
    layer = dict.fromkeys(NUMBERS, 0.0)
    layers = [layer | {"information_token": nats, "null_token": nats / 10}, layer]
    store(run, [{"step": step, "tokens": tokens, "layers": layers}])


def test_information_is_shown_once_all_runs_were_measured_at_their_end_on_as_much_text(runs):
    nats = {run.folder: 0.1 * (i + 1) for i, run in enumerate(runs)}
    for run in runs[1:]:
        measured(run, 12, 256, nats[run.folder])
    for step, tokens in ((8, 256), (12, 512)):
        measured(runs[0], step, tokens, 0.1)
        assert len(KINDS["ladder"].data(runs)["panels"]) == 6
    measured(runs[0], 12, 256, nats[runs[0].folder])
    data = KINDS["ladder"].data(runs)
    panel = data["panels"][6]
    points, chance = ([e for e in panel["lines"] if e["look"] == x] for x in ("points", "hollow"))
    expected = [np.mean(v) for v in by_width(runs, lambda run: nats[run.folder])]
    assert points[0]["y"] == pytest.approx(expected) and points[1]["y"] == [0, 0]
    assert chance[0]["y"] == pytest.approx([x / 10 for x in expected])
    assert any("256 held-out tokens" in note for note in data["notes"])
    assert len(drawn(draw_panels(data))) == 7


def test_layers_stand_side_by_side_where_the_setting_is_a_word(runs, text_file, tmp_path):
    made = []
    for act_fn in ("relu", "gelu"):
        tables = runs[0].settings.tables()
        tables["model"]["act_fn"] = act_fn
        made.append(create_run(mr.Config.from_tables(tables), tmp_path / act_fn))
        assert mr.train(made[-1])
    data = KINDS["ladder"].data(made)
    panel = data["panels"][1]
    assert panel["x"]["ticks"] == [[0, "relu"], [1, "gelu"]]
    first, second = panel["lines"]
    assert first["x"][0] < 0 < second["x"][0] and first["look"] == "points"
    assert any("gelu" in note for note in data["notes"])  # what "on" means for it
    draw_panels(data)


def test_doses_are_in_order_also_where_one_is_0(runs, tmp_path):
    made = []
    for l1 in (3e-5, 0.0, 1e-4):
        tables = runs[0].settings.tables()
        tables["train"]["l1"] = l1
        made.append(create_run(mr.Config.from_tables(tables), tmp_path / f"{l1}"))
        assert mr.train(made[-1])
    data = KINDS["ladder"].data(made)
    assert [row[0] for row in data["table"][1:]] == ["0", "3e-05", "0.0001"]
    assert data["panels"][0]["x"]["scale"] == "linear"
    losses = {run.settings.train.l1: run.probes()[-1]["val_loss"] for run in made}
    assert data["panels"][0]["lines"][0]["y"] == [losses[l1] for l1 in sorted(losses)]


def test_other_runs_are_refused(runs, text_file, tmp_path):
    one = [run for run in runs if run.config.d_mlp == 24]
    words = "finished runs of equal depth that differ in one setting"
    done = command("figure", "ladder", *(run.folder for run in one))
    check_fails_plainly(done, words, "the 2 finished ones given differ in none")
    other = new_run(tmp_path, text_file, l1=0.1)
    assert mr.train(other)
    done = command("figure", "ladder", *(run.folder for run in runs), other.folder)
    check_fails_plainly(done, "differ in model.d_mlp, train.l1")
    unfinished = new_run(tmp_path, text_file, "begun", steps=13)
    assert not mr.train(unfinished, should_stop=lambda: True)
    assert any("begun" in note for note in KINDS["ladder"].data([*runs, unfinished])["notes"])
