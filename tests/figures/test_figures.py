"""Figures: lines are the numbers of the JSON and of the records, and layers keep their colours."""

from __future__ import annotations

import json
import math
import shutil
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from helpers import made_run

import minirelu as mr
from minirelu.errors import UserError
from minirelu.figures import CAPTIONS, FIGURES, KINDS, SWEEP, draw_all, kind_of, style
from minirelu.figures.panels import draw_panels
from minirelu.figures.runs import open_runs
from minirelu.figures.style import layer_colors, not_drawn, save, short

OF_ONE_RUN = [name for name, kind in KINDS.items() if kind.takes != SWEEP]


def drawn(figure):
    """The panels of a figure: those that can be seen, in order."""
    return [axes for axes in figure.axes if axes.get_visible() and axes.get_label() != "<colorbar>"]


def numbers(values):
    return [math.nan if v is None else v for v in values]


@pytest.mark.parametrize("name", OF_ONE_RUN)
def test_lines_are_the_numbers_of_the_json(name, finished_run):
    kind = KINDS[name]
    data = kind.data([finished_run])
    data = json.loads(json.dumps(data, allow_nan=False))  # as --json writes it
    (run,) = data["runs"]
    assert run["settings"] == finished_run.settings.tables()
    assert run["corpus_sha256"] == finished_run.corpus["sha256"]
    assert run["made_with"]["minirelu"] == mr.__version__
    assert (run["step"], run["tokens"]) == (12, 12 * 4 * 16)
    figure = kind.draw(data)
    panels = drawn(figure)
    assert len(panels) == len(data["panels"]) > 0
    for axes, panel in zip(panels, data["panels"], strict=True):
        if name == "heatmap":
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


@pytest.fixture
def seeds(finished_run, tmp_path):
    """Three seeds; the last has one probe fewer."""
    values = {0: [[0.2, 0.5], [0.3, 0.6]], 1: [[0.4, 0.5], [0.9, 0.6]], 2: [[0.3, 0.8], [0, 0]]}
    runs = []
    for seed, rows in values.items():
        probes = [
            {"step": step, "per_batch": row, "val_loss": 4.0 + seed}
            for step, row in enumerate(rows[: 1 if seed == 2 else 2])
        ]
        runs.append(made_run(tmp_path / f"seed{seed}", finished_run, probes, train={"seed": seed}))
    return runs


def test_seeds_are_drawn_as_mean_and_range(seeds):
    data = KINDS["fig1"].data(seeds[:2])
    first, second = data["panels"][0]["lines"]
    assert first["x"] == [0, 1]
    assert first["y"] == pytest.approx([0.3, 0.6])
    assert (first["low"], first["high"]) == ([0.2, 0.3], [0.4, 0.9])
    assert second["y"] == second["low"] == second["high"] == [0.5, 0.6]
    assert "mean of 2 runs" in data["notes"][0]
    (axes,) = drawn(draw_panels(data))
    corners = axes.collections[0].get_paths()[0].vertices
    assert corners[:, 1].min() == pytest.approx(0.2) and corners[:, 1].max() == pytest.approx(0.9)
    loss = KINDS["loss"].data(seeds[:2])["panels"][0]["lines"][0]
    assert (loss["y"], loss["low"], loss["high"]) == ([4.5, 4.5], [4, 4], [5, 5])


def test_what_no_seed_measured_is_a_gap(finished_run, tmp_path):
    runs = []
    for seed, values in enumerate([[None, 0.5], [None, None]]):
        probes = [{"step": 0, "per_batch": values}]
        runs.append(made_run(tmp_path / str(seed), finished_run, probes, train={"seed": seed}))
    first, second = KINDS["fig1"].data(runs)["panels"][0]["lines"]
    assert first["y"] == [None] and second["y"] == second["low"] == [0.5]


def test_seeds_are_compared_at_the_probes_they_share(seeds):
    first = KINDS["fig1"].data(seeds)["panels"][0]["lines"][0]
    assert first["x"] == [0] and first["y"] == pytest.approx([0.3])


def test_runs_of_other_settings_get_other_dashes_and_marks(finished_run, tmp_path):
    probes = [{"step": 0}, {"step": 2}]
    wide = made_run(tmp_path / "wide", finished_run, probes, model={"d_mlp": 64})
    more = made_run(tmp_path / "more", finished_run, probes, train={"batch_size": 8})
    runs = [made_run(tmp_path / "base", finished_run, probes), wide]
    data = KINDS["fig1"].data(runs)
    (axes,) = drawn(draw_panels(data))
    a, b = axes.get_lines()[0], axes.get_lines()[2]
    assert tuple(a.get_color()) == tuple(b.get_color())
    assert a.get_linestyle() != b.get_linestyle() and a.get_marker() != b.get_marker()
    series = {each["series"] for each in data["panels"][0]["lines"]}
    assert series == {"d_mlp 32", "d_mlp 64"}
    # more tokens a step: the axis counts tokens
    (panel,) = KINDS["fig1"].data([runs[0], more])["panels"]
    assert panel["x"]["label"] == "training tokens"
    assert [each["x"] for each in panel["lines"][::2]] == [[0, 128], [0, 256]]


def sweep(finished_run, folder, field, rows):
    """Runs with values of a field; rows: value to per_batch of each seed."""
    for value, seeds in rows.items():
        for seed, per_batch in enumerate(seeds):
            probes = [{"step": 12, "per_batch": per_batch}]
            name = f"{field}={value}-seed{seed}"
            change = {"model": {field: value}, "train": {"seed": seed}}
            made_run(folder / name, finished_run, probes, **change)
    return open_runs([folder])


def test_width_sweep(finished_run, tmp_path):
    rows = {64: [[0.5, 0.7], [0.7, 0.7]], 32: [[0.8, 0.9]], 128: [[0.3, 0.6]]}
    data = KINDS["fig3"].data(sweep(finished_run, tmp_path, "d_mlp", rows))
    per_batch, per_token = data["panels"]
    first, last = per_batch["lines"]
    assert first["x"] == last["x"] == [32, 64, 128]  # in order, whatever the folders' names
    assert first["y"] == pytest.approx([0.8, 0.6, 0.3])
    assert (first["low"], first["high"]) == ([0.8, 0.5, 0.3], [0.8, 0.7, 0.3])
    assert last["y"] == pytest.approx([0.9, 0.7, 0.6])
    assert per_token["lines"][0]["y"] == [0.5, 0.5, 0.5]
    axes = drawn(draw_panels(json.loads(json.dumps(data))))
    assert [t.get_text() for t in axes[1].get_xticklabels()] == ["32", "64", "128"]


def test_depth_sweep(finished_run, tmp_path):
    rows = {3: [[0.2, 0.4, 0.9]], 2: [[0.1, 0.8], [0.3, 0.8]]}
    data = KINDS["fig4"].data(sweep(finished_run, tmp_path, "n_layers", rows))
    two, three = data["panels"][0]["lines"]
    assert (two["x"], two["y"]) == ([0, 1], pytest.approx([0.2, 0.8]))
    assert (three["x"], three["y"]) == ([0, 0.5, 1], [0.2, 0.4, 0.9])
    assert (two["series"], three["series"]) == ("2 layers", "3 layers")


def test_sweeps_that_are_none(finished_run, tmp_path):
    rows = {32: [[0.5, 0.5]], 64: [[0.5, 0.5]]}
    runs = sweep(finished_run, tmp_path / "a", "d_mlp", rows)
    with pytest.raises(UserError, match="two or more values of n_layers.* all with n_layers 2"):
        KINDS["fig4"].data(runs)
    change = {"model": {"d_mlp": 96}, "train": {"learning_rate": 0.5}}
    other = made_run(tmp_path / "other", finished_run, [{"step": 12}], **change)
    with pytest.raises(UserError, match="differ in train.learning_rate too"):
        KINDS["fig3"].data([*runs, other])
    change = {"model": {"d_mlp": 96}}
    begun = made_run(tmp_path / "begun", finished_run, [{"step": 4}], **change)
    data = KINDS["fig3"].data([*runs, begun])
    assert data["panels"][0]["lines"][0]["x"] == [32, 64]
    assert "Left out, not finished: begun." in data["notes"]


def test_what_cannot_be_compared_is_refused_or_said(finished_run, tmp_path):
    base = made_run(tmp_path / "base", finished_run, [{"step": 0}])
    small = made_run(tmp_path / "small", finished_run, [{"step": 0, "batch_tokens": 64}])
    long = made_run(tmp_path / "long", finished_run, [{"step": 0}], model={"n_ctx": 32})
    words = made_run(tmp_path / "words", finished_run, [{"step": 0}], model={"d_vocab": 99})
    for name, other, why in (
        ("fig1", small, "batches of different size"),
        ("early", small, "batches of different size"),
        ("fig2b", long, "sequences of different length"),
        ("early", long, "sequences of different length"),
        ("loss", words, "different texts or vocabularies"),
    ):
        with pytest.raises(UserError, match=f"{why}: base, {other.folder.name}"):
            KINDS[name].data([base, other])
    for name, other, why in (
        ("fig5", small, "batches of different size"),
        ("fig1", long, "sequences of different length"),
        ("fig2b", words, "different texts or vocabularies"),
    ):
        data = KINDS[name].data([base, other])
        assert any(why in note for note in data["notes"])
        foot = draw_panels(data)._supxlabel.get_text()
        assert why in foot.replace("\n", " ")


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
    assert list(CAPTIONS) == list(KINDS) and set(FIGURES) == set(OF_ONE_RUN)


def test_a_figure_without_its_data_is_a_sentence(finished_run, tmp_path, monkeypatch):
    run = mr.Run.open(shutil.copytree(finished_run.folder, tmp_path / "old"))
    shutil.rmtree(run.folder / "counts")
    said = []
    monkeypatch.setattr(style, "not_drawn", lambda why: said.append(why) or not_drawn(why))
    pictures = draw_all(run, tmp_path)
    assert list(pictures) == list(FIGURES) and all(p.is_file() for p in pictures.values())
    assert [why.split()[0] for why in said] == ["fan", "frequencies", "rarefaction", "reuse"]
    assert all("is left out: cannot read" in why for why in said)


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
