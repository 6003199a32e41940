"""Figures: lines are the numbers of the JSON and of the records, and layers keep their colours."""

from __future__ import annotations

import json
import math
import shutil
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from helpers import drawn, made_run

import minirelu as mr
from minirelu.errors import UserError
from minirelu.figures import (
    CAPTIONS,
    FIGURES,
    KINDS,
    OF_HISTORY,
    OF_MEASURED,
    OF_WOKEN,
    SWEEP,
    draw_all,
    kind_of,
    style,
)
from minirelu.figures.panels import draw_panels
from minirelu.figures.style import layer_colors, not_drawn, save, short

OF_ONE_RUN = [*FIGURES, *OF_HISTORY]


def numbers(values):
    return [math.nan if v is None else v for v in values]


@pytest.mark.parametrize("name", OF_ONE_RUN)
def test_lines_are_the_numbers_of_the_json(name, finished_run, run_with_history):
    kind, given = KINDS[name], run_with_history if name in OF_HISTORY else finished_run
    data = kind.data([given])
    data = json.loads(json.dumps(data, allow_nan=False))  # as --json writes it
    (run,) = data["runs"]
    assert run["settings"] == given.settings.tables()
    assert run["corpus_sha256"] == given.corpus["sha256"]
    assert run["made_with"]["minirelu"] == mr.__version__
    last = 96 if name in OF_HISTORY else 12
    assert (run["step"], run["tokens"]) == (last, last * 4 * 16)
    figure = kind.draw(data)
    panels = drawn(figure)
    assert len(panels) == len(data["panels"]) > 0
    for axes, panel in zip(panels, data["panels"], strict=True):
        if name in ("heatmap", "raster"):
            (image,) = axes.get_images()
            assert image.get_array().tolist() == panel["z"]
            continue
        lines = axes.get_lines()
        assert len(lines) == len(panel["lines"]) > 0
        for artist, each in zip(lines, panel["lines"], strict=True):
            assert artist.get_xdata().tolist() == each["x"]
            np.testing.assert_array_equal(artist.get_ydata(), numbers(each["y"]))
            if each["layer"]:  # the same colour in every figure
                l, n_layers = each["layer"]
                assert tuple(artist.get_color()) == tuple(layer_colors(n_layers)[l])
        low, high = axes.get_ylim()
        for each in panel["lines"]:
            y = [v for v in each["y"] if v is not None]
            assert low <= min(y) and max(y) <= high, "outside the panel"


def test_figures_draw_the_records(finished_run):
    probes = finished_run.probes()
    for name, measure in (
        ("fig1", "per_batch"),
        ("fig2a", "per_token"),
        ("fig2b", "median_in_sequence_used"),
        ("fig5", "per_token"),
    ):
        (panel,) = KINDS[name].data([finished_run])["panels"]
        assert len(panel["lines"]) == finished_run.config.n_layers
        for l, each in enumerate(panel["lines"]):
            assert each["x"] == [p["step"] for p in probes]
            assert each["y"] == [p[measure][l] for p in probes]
    early = KINDS["early"].data([finished_run])["panels"]
    for panel, measure in zip(early, ("per_sequence", "per_batch"), strict=True):
        assert panel["lines"][1]["y"] == [p[measure][1] for p in probes]
    heat = KINDS["heatmap"].data([finished_run])["panels"]
    assert heat[1]["z"][1] == [p["per_sequence"][1] for p in probes]
    loss = {
        each["series"]: each for each in KINDS["loss"].data([finished_run])["panels"][0]["lines"]
    }
    assert loss["probe (held out)"]["y"] == [p["val_loss"] for p in probes]
    train = finished_run.metrics("train")
    assert loss["training batches"]["y"] == [r["loss"] for r in train]
    bigram = finished_run.corpus["baselines"]["bigram"]
    assert loss[f"bigram {bigram:.2f}"]["y"] == [bigram, bigram]


def test_figures_draw_the_counts(finished_run):
    counts = finished_run.counts(12)
    panels = KINDS["frequencies"].data([finished_run])["panels"]
    for l, on in enumerate(counts.tokens_on):
        steps, silent = panels[l]["lines"]
        assert silent["y"][0] == np.mean(on == 0)
        for i, low in enumerate(2.0 ** np.arange(9)):  # 256 tokens: up to [256, 512)
            assert steps["x"][i] == low / counts.n_tokens
            assert steps["y"][i] == np.mean((on >= low) & (on < 2 * low))
        assert sum(steps["y"]) + silent["y"][0] == pytest.approx(1)
    fan = KINDS["fan"].data([finished_run])["panels"][1]["lines"]
    for each, p in zip(fan, (5, 25, 50, 75, 95), strict=True):
        assert each["y"][-1] == mr.in_sequence_percentile(counts, p)[1]
    seen = KINDS["rarefaction"].data([finished_run])["panels"][0]["lines"][0]
    assert seen["y"][-1] == pytest.approx(np.mean(counts.tokens_on[0] > 0))  # all of the probe
    reuse = KINDS["reuse"].data([finished_run])["panels"][0]["lines"][0]
    assert reuse["y"][-1] == pytest.approx(1 - mr.usage(counts).per_sequence[0])


def test_silent_units_and_bins_by_hand(finished_run, monkeypatch):
    """Of 8 units in 16 tokens: 2 silent, then on at 1, 1, 2, 3, 4 and 16 of them; 24 more at 8."""
    times = [0, 0, 1, 1, 2, 3, 4, 16] + [8] * 24
    post = (np.arange(16)[:, None] < np.array(times)).astype(float)[None]
    counts = mr.UnitCounts(finished_run.config)
    counts.update({f"blocks.{l}.mlp.hook_post": post for l in range(2)})
    monkeypatch.setattr(mr.Run, "counts", lambda run, step: counts)
    steps, silent = KINDS["frequencies"].data([finished_run])["panels"][1]["lines"]
    assert silent["y"] == [2 / 32, 0] and silent["series"] == "silent on all 16 tokens"
    assert [32 * y for y in steps["y"]] == [2, 2, 1, 24, 1, 0]
    assert steps["x"] == [1 / 16, 2 / 16, 4 / 16, 8 / 16, 1, 2]


def test_close_up_has_all_probes_of_the_first_steps_and_no_other(finished_run, tmp_path):
    steps = [0, 1, 2, 4, 8, 16, 32, 64, 128]
    dip = [[1.0, 1.0 - s / 100 if s < 32 else 1.0] for s in steps]
    probes = [{"step": s, "per_sequence": v} for s, v in zip(steps, dip, strict=True)]
    run = made_run(tmp_path / "run", finished_run, probes)
    lines = KINDS["early"].data([run])["panels"][0]["lines"]
    assert lines[1]["x"] == steps[:-1] and lines[1]["y"] == [v[1] for v in dip[:-1]]


def test_names_and_numbers_of_runs_are_checked(finished_run):
    with pytest.raises(UserError, match=r"no figure 'fig6' \(did you mean 'fig"):
        kind_of("fig6")
    for name, n, words in (
        ("fan", 2, "one run; 2"),
        ("fig3", 1, "several runs.*; 1"),
        ("fig1", 0, "; 0"),
    ):
        with pytest.raises(UserError, match=words):
            KINDS[name].check(name, n)
    assert list(CAPTIONS) == list(KINDS)
    of_one_run = {name for name, kind in KINDS.items() if kind.takes != SWEEP}
    assert {*FIGURES, *OF_HISTORY, *OF_WOKEN, *OF_MEASURED} == of_one_run


def test_a_figure_lacking_its_data_is_replaced_by_a_sentence(finished_run, tmp_path, monkeypatch):
    run = mr.Run.open(shutil.copytree(finished_run.folder, tmp_path / "old"))
    shutil.rmtree(run.folder / "counts")
    reasons = []
    monkeypatch.setattr(style, "not_drawn", lambda why: reasons.append(why) or not_drawn(why))
    pictures = draw_all(run, tmp_path)
    assert list(pictures) == list(FIGURES) and all(p.is_file() for p in pictures.values())
    assert {"fan", "frequencies", "rarefaction", "reuse"} <= {why.split()[0] for why in reasons}
    assert all("is left out: cannot read" in why for why in reasons)


def test_hostile_names_are_text(finished_run, tmp_path):
    """Neither markup in the SVG nor mathematics."""
    names = ("a $\\frac$ <script>&", "b $x$")
    runs = [made_run(tmp_path / str(i), finished_run, [{"step": 0}]) for i in range(2)]
    data = KINDS["fig1"].data(runs, apart=True)
    for each in data["panels"][0]["lines"]:
        each["series"] = names[each["series"] == "1"]
    data["notes"] = [names[0]]
    save(draw_panels(data), tmp_path / "figure")
    svg = (tmp_path / "figure.svg").read_text(encoding="utf-8")
    ET.fromstring(svg)  # well-formed
    assert "<script" not in svg


def test_steps_and_tokens_on_the_axes(finished_run):
    (axes,) = drawn(KINDS["fig1"].draw(KINDS["fig1"].data([finished_run])))
    assert axes.get_xlabel() == "training step" and "%" in axes.yaxis.get_major_formatter()(0.5, 0)
    (top,) = axes.child_axes
    assert top.get_xlabel() == "training tokens"
    ticks = dict(zip(axes.get_xticks(), top.get_xticks(), strict=True))
    assert ticks[4] == 4 * 4 * 16
    assert (short(999), short(1000), short(2048), short(5.2e6)) == ("999", "1k", "2k", "5.2M")
