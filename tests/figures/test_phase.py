"""Use per batch against use per token: every point is what a probe measured."""

from __future__ import annotations

import pytest
from helpers import made_run

from minirelu.figures import KINDS
from minirelu.figures.panels import draw_panels


def test_one_run_shows_its_course_and_several_their_ends(finished_run, tmp_path):
    probes = [
        {"step": 0, "per_token": [0.5, 0.4], "per_batch": [1.0, 0.9]},
        {"step": 12, "per_token": [0.2, 0.0], "per_batch": [0.8, 0.0]},
    ]
    run = made_run(tmp_path / "one", finished_run, probes)
    data = KINDS["phase"].data([run])
    first, second = data["panels"][0]["lines"]
    assert (first["x"], first["y"], first["layer"]) == ([0.5, 0.2], [1.0, 0.8], [0, 2])
    assert (second["x"], second["y"]) == ([0.4], [0.9])  # a logarithmic axis has no place for 0
    draw_panels(data)
    other = made_run(tmp_path / "two", finished_run, probes, model={"d_mlp": 64})
    data = KINDS["phase"].data([run, other])
    lines = data["panels"][0]["lines"]
    assert [each["x"] for each in lines] == [[0.2], [0.2]]
    assert all(each["y"] == pytest.approx([0.8]) for each in lines)
    assert "The ends of 2 runs." in data["notes"]
