"""Figures of a study: what they draw are the rows and the data of its results."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest
from helpers import command, drawn

from minirelu.death.bursts import largest_in_intervals, spikes
from minirelu.death.experiments import EXPERIMENTS
from minirelu.death.history import History
from minirelu.death.summary import lives_of
from minirelu.death.verdicts import result_name
from minirelu.figures.panels import draw_panels
from minirelu.figures.studies import FIGURES_OF_STUDIES, save_figure
from minirelu.figures.style import color_of

OF_THE_STUDY = [name for name in EXPERIMENTS if name != "approach"]  # too few die there for that


@pytest.fixture(scope="module")
def contents(study) -> dict[str, Any]:
    return {
        name: json.loads(json.dumps(EXPERIMENTS[name].run(study).as_json(study)))
        for name in OF_THE_STUDY
    } | {"approach": of_approach(study)}


def of_approach(study) -> dict[str, Any]:
    """A result made by hand: layer 0 has no deaths to align."""
    rows = [
        {"where": f"{l}", "phase": "an update", "statistic": f"{part}, {who}, 1e-3",
         "values": [v, v + 1, v + 2], "mean": v + 1, "low": v, "high": v + 2,
         "null": "0", "says": "-"}
        for l in range(2) for i, part in enumerate(("gradient", "bias"))
        for v, who in ((-10 * l - i, "dying"), (10 * l + i, "staying"))
    ]  # fmt: skip
    layers = {
        "0": {"margins": [], "spread": [], "pulls": []},
        "1": {"margins": [[3, 2, -1], [5, 2, -1]], "spread": [[1, 1, 0], [2, 1, 0]], "pulls": []},
    }
    return {
        "experiment": "approach", "arm": "l1", "rows": rows, "plan": vars(study.plan), "runs": [],
        "settings": study.base.tables(), "data": {**layers, "steps before death": [-8, -4, 0]},
    }  # fmt: skip


def rows(content, statistic: str, **fixed: str) -> list[dict[str, Any]]:
    return [
        row
        for row in content["rows"]
        if row["statistic"] == statistic and all(row[k] == v for k, v in fixed.items())
    ]


def numbers(values) -> list[float]:
    return [math.nan if v is None else v for v in values]


def series(panel: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [each for each in panel["lines"] if each["series"] == name]


def test_every_experiment_has_a_figure():
    assert set(FIGURES_OF_STUDIES) == set(EXPERIMENTS)


@pytest.mark.parametrize("name", FIGURES_OF_STUDIES)
def test_lines_are_the_numbers_of_the_data(contents, name):
    data = FIGURES_OF_STUDIES[name](contents[name])
    assert json.loads(json.dumps(data, allow_nan=False))["runs"] == contents[name]["runs"]
    axes = drawn(draw_panels(data))
    assert len(axes) == len(data["panels"]) > 0
    for on, panel in zip(axes, data["panels"], strict=True):
        for artist, each in zip(on.get_lines(), panel["lines"], strict=True):
            np.testing.assert_array_equal(artist.get_xdata(), each["x"])
            np.testing.assert_array_equal(artist.get_ydata(), numbers(each["y"]))
            assert artist.get_color() == color_of(each["look"], each["layer"])
        bars = {"fill": 0, "bar": 0}
        for each in panel["lines"]:
            points = "seed" in each["look"] or each["look"].split()[0] in (
                "points", "hollow", "arm"
            )  # fmt: skip
            bars["bar" if points else "fill"] += bool(each["low"]) + ("left" in each)
        kinds = [type(c).__name__ for c in on.collections]
        assert kinds.count("LineCollection") == bars["bar"]
        assert len(kinds) == sum(bars.values())


def test_bars_of_points_are_their_limits(contents):
    (axes,) = drawn(draw_panels(FIGURES_OF_STUDIES["intervene"](contents["intervene"])))
    content = contents["intervene"]
    up, across = axes.collections[:2]
    (silent,) = rows(content, "base: silent share")
    (loss,) = rows(content, "base: loss, nats per token")
    (bar,), (level,) = up.get_segments(), across.get_segments()
    np.testing.assert_allclose(bar, [[loss["mean"], silent[k]] for k in ("low", "high")])
    np.testing.assert_allclose(level, [[loss[k], silent["mean"]] for k in ("low", "high")])


def test_twins_are_drawn_beside_their_control_and_one(contents):
    content = contents["twins"]
    data = FIGURES_OF_STUDIES["twins"](content)
    assert [panel["layer"] for panel in data["panels"]] == [[0, 2], [1, 2]]
    for l, panel in enumerate(data["panels"]):
        for name, statistic in (
            ("same initial weights, other batches", "overlap / null"),
            ("the same, at equal margin at step 0", "the same, at equal margin at step 0"),
            ("control: other weights, same batches", "control: other weights, same batches"),
        ):
            (each,), found = series(panel, name), rows(content, statistic, where=f"{l}")
            assert each["x"] == [int(row["phase"]) for row in found]
            assert each["y"] == [row["mean"] for row in found]
            if "margin" not in name:
                assert each["low"] == [row["low"] for row in found]
                assert each["high"] == [row["high"] for row in found]
            assert each["layer"] == (None if "control" in name else [l, 2])
        (one,) = series(panel, "at random")
        assert one["y"] == [1, 1]


def test_layers_in_which_nothing_happened_have_no_panel(contents):
    content = json.loads(json.dumps(contents["twins"]))
    for row in content["rows"]:
        if row["where"] == "0":
            row |= {"mean": None, "low": None, "high": None, "values": [None, None]}
    data = FIGURES_OF_STUDIES["twins"](content)
    assert [panel["layer"] for panel in data["panels"]] == [[1, 2]]
    assert "Nothing to tell in layer 0." in data["notes"]
    assert draw_panels(data)


def test_clock_has_each_rate_on_each_clock(contents, study):
    content = contents["clock"]
    data = FIGURES_OF_STUDIES["clock"](content)
    panels = iter(data["panels"])
    half = [History.of(run) for run in study.runs("half_rate")]
    for l in range(2):
        first = [lives_of(history, l).first.high for history in half]
        died = [[np.mean((f >= 0) & (f <= p)) for p in range(25)] for f in first]
        for clock in ("step", "sum of lr", "sum of lr²"):
            panel = next(panels)
            (row,) = rows(content, f"spread on {clock}", where=f"{l}")
            assert panel["title"] == f"layer {l}: spread {row['mean']:.3f}"
            (each,) = series(panel, "learning rate 0.05")
            np.testing.assert_allclose(each["y"], np.mean(died, axis=0))
            assert panel["x"]["label"] == clock and each["x"][0] == 0
            twice = series(panel, "learning rate 0.1")[0]["x"][-1] / each["x"][-1]
            assert twice == pytest.approx({"step": 1, "sum of lr": 2, "sum of lr²": 4}[clock])


def test_bursts_are_beside_the_spikes_of_the_same_seed(contents, study):
    deaths_0, deaths_1, spikes_0, spikes_1 = FIGURES_OF_STUDIES["burst"](contents["burst"])[
        "panels"
    ]
    for s, (deaths, peaks) in enumerate(((deaths_0, spikes_0), (deaths_1, spikes_1))):
        history = History.of(study.runs("base")[s])
        for l, each in enumerate(deaths["lines"]):
            lives = lives_of(history, l)
            assert each["layer"] == [l, 2] and each["x"][0] == 1
            assert sum(each["y"]) == lives.n_deaths.sum()
        (gradient,) = series(peaks, "gradient")
        norms = np.array([r["grad_norm"] for r in history.run.metrics("train")])
        peaks_of_all = largest_in_intervals(spikes(norms), history.steps).tolist()
        assert gradient["y"] == peaks_of_all[2:]  # after 4 steps of warm-up
        assert gradient["x"][0] == 5
        assert deaths["title"] == f"seed {s}: deaths" and peaks["title"] == f"seed {s}: spikes"


def test_margins_and_pulls_by_hand(contents):
    left, right = FIGURES_OF_STUDIES["approach"](contents["approach"])["panels"]
    (mean,) = series(left, "all seeds")
    assert (mean["x"], mean["y"]) == ([-8, -4, 0], [4, 2, -1])
    assert (mean["low"], mean["high"]) == ([2.5, 1, -1], [5.5, 3, -1])
    assert [each["y"] for each in series(left, "each seed")] == [[3, 2, -1], [5, 2, -1]]
    (dying,), (staying,) = series(right, "units dying"), series(right, "units staying")
    assert (dying["y"], staying["y"]) == ([-9, -10], [11, 12])
    assert dying["high"] == [-8, -9]
    assert [text for _, text in right["x"]["ticks"]] == ["gradient", "bias"]
    data = FIGURES_OF_STUDIES["approach"](contents["approach"])
    assert data["title"].endswith("(l1)") and "Nothing to tell in layer 0." in data["notes"]


@pytest.mark.parametrize(
    "name, title, statistic, fixed",
    [
        ("replay", "own weights frozen", "deaths avoided, own weights frozen", {}),
        ("replay", "suspect batch swapped", "deaths avoided, suspect batch swapped", {}),
        ("revive", "returns / flicker", "returns / flicker", {}),
        (
            "revive",
            "returns per dead unit and step, second half",
            "returns per dead unit and step",
            {"phase": "2nd half"},
        ),
    ],
)
def test_each_layer_has_its_mean_and_its_seeds(contents, name, title, statistic, fixed):
    data = FIGURES_OF_STUDIES[name](contents[name])
    (panel,) = [p for p in data["panels"] if p["title"] == title]
    for l in range(2):
        (row,) = rows(contents[name], statistic, where=f"{l}", **fixed)
        seeds, mean = [each for each in panel["lines"] if each["layer"] == [l, 2]]
        assert seeds["y"] == row["values"] and seeds["look"] == "each seed"
        assert (mean["x"], mean["y"]) == ([l], [row["mean"]])
        assert (mean["low"], mean["high"]) == ([row["low"]], [row["high"]])


def test_prediction_has_every_set_of_features_and_the_detector(contents):
    content = contents["predict"]
    *panels, detector = FIGURES_OF_STUDIES["predict"](content)["panels"]
    for panel in panels:
        phase = panel["title"].split()[-1]
        names = [text.replace("\n", " ") for _, text in panel["x"]["ticks"]]
        assert "margin and its slope" in names and "step 0 alone" in names
        for l in range(2):
            expected = [
                rows(content, f"AUC, {n}", where=f"{l}", phase=phase)[0]["mean"] for n in names
            ]
            assert panel["lines"][l]["y"] == expected and panel["lines"][l]["layer"] == [l, 2]
    curves = content["data"]["roc of the second moment"]["1"]
    drawn_curves = [each for each in detector["lines"] if each["layer"] == [1, 2]]
    assert [(c["false"], c["true"]) for c in curves] == [(c["x"], c["y"]) for c in drawn_curves]


def test_the_command_draws_its_figure(contents, study):
    result = command("death", "revive", "--out", study.folder)
    picture = study.folder / "figures" / "revive.png"
    assert f"figure    {picture}" in result.stdout and picture.read_bytes().startswith(b"\x89PNG")
    content = {**contents["revive"], "arm": "l1"}
    assert save_figure(content, study.folder / "figures").stem == result_name("revive", "l1")
    ET.parse(study.folder / "figures" / "revive-l1.svg")  # well-formed
