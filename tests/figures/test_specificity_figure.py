"""The figure of what units respond to: its numbers are those that were stored."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from helpers import drawn

import minirelu as mr
from minirelu.figures import KINDS, figures_of
from minirelu.intervals import over_seeds
from minirelu.specificity.measure import measure, read_results, store

KIND = KINDS["specificity"]


@pytest.fixture(scope="module")
def runs(finished_sweep, tmp_path_factory) -> list[mr.Run]:
    """Two widths, two seeds, measured at the last step."""
    folder = shutil.copytree(finished_sweep[0], tmp_path_factory.mktemp("figure") / "swept")
    runs = [mr.Run.open(file.parent) for file in sorted(folder.glob("*/config.toml"))]
    for run in runs:
        store(run, [measure(run, 320)])
    return runs


def test_layers_stand_side_by_side_with_bars_over_seeds(runs):
    data = json.loads(json.dumps(KIND.data(runs[:2]), allow_nan=False))
    assert len(data["panels"]) == 4  # nothing over training
    assert "Held-out text, 320 tokens." in data["notes"]
    assert "Means over 2 seeds" in data["notes"][1]
    silent = data["panels"][0]
    assert [text for _, text in silent["x"]["ticks"]] == ["silent", "steady"]
    seeds = [read_results(run)[-1]["layers"] for run in runs[:2]]
    for l, each in enumerate(silent["lines"][:2]):
        expected = over_seeds([layers[l]["silent"] for layers in seeds])
        assert (each["y"], each["low"], each["high"]) == (
            [expected[0]],
            [expected[1]],
            [expected[2]],
        )
        assert each["layer"] == [l, 2] and abs(each["x"][0]) < 0.5
    told = data["panels"][2]["lines"]
    nulls = [each for each in told if each["series"] == "firings at random places"]
    assert len(nulls) == 3 * 2 and len(told) == 2 * len(nulls)
    assert all(each["look"] == "hollow" for each in nulls)
    assert nulls[0]["y"] == [np.mean([layers[0]["null_token"] for layers in seeds])]
    # what was measured and its null share their place
    assert [each["x"] for each in told[:2]] == [each["x"] for each in told[2:4]]
    assert len(drawn(KIND.draw(data))) == 4


def test_settings_are_told_apart_by_marks(runs):
    data = KIND.data(runs)
    series = {each["series"] for each in data["panels"][0]["lines"]}
    assert series == {"d_mlp 24", "d_mlp 40"}
    places = {each["x"][0] for each in data["panels"][0]["lines"] if each["x"][0] < 0.5}
    assert len(places) == 4  # two layers of two settings


def test_steps_are_drawn_over_training(runs, tmp_path):
    run = mr.Run.open(shutil.copytree(runs[0].folder, tmp_path / "run"))
    store(run, [measure(run, 320, step) for step in run.steps[:-1]])
    data = KIND.data([run])
    assert len(data["panels"]) == 8
    told = data["panels"][4]["lines"]
    results = read_results(run)
    for l, each in enumerate(told):
        assert each["x"] == run.steps and each["low"] is None
        assert each["y"] == [result["layers"][l]["information_token"] for result in results]
    assert len(drawn(KIND.draw(data))) == 8


def test_the_report_shows_it_once_it_was_measured(runs, finished_run):
    assert "specificity" in figures_of(runs[0]) and "specificity" not in figures_of(finished_run)


def test_what_was_not_measured_alike_is_refused(runs, finished_run, tmp_path):
    with pytest.raises(mr.UserError, match="is not known yet: .*specificity"):
        KIND.data([finished_run])
    run = mr.Run.open(shutil.copytree(runs[0].folder, tmp_path / "run"))
    store(run, [measure(run, 160)])
    with pytest.raises(mr.UserError, match=r"amounts of text \(160, 320 tokens\)"):
        KIND.data([run, runs[1]])
