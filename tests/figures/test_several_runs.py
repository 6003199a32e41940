"""Figures of several runs: seeds, sweeps, and what cannot be compared."""

from __future__ import annotations

import json

import pytest
from helpers import drawn, made_run

from minirelu.errors import UserError
from minirelu.figures import KINDS
from minirelu.figures.panels import draw_panels
from minirelu.figures.runs import open_runs


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


def test_width_sweep_draws_shares_over_width(finished_run, tmp_path):
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


def test_depth_sweep_draws_a_line_for_each_depth(finished_run, tmp_path):
    rows = {3: [[0.2, 0.4, 0.9]], 2: [[0.1, 0.8], [0.3, 0.8]]}
    data = KINDS["fig4"].data(sweep(finished_run, tmp_path, "n_layers", rows))
    two, three = data["panels"][0]["lines"]
    assert (two["x"], two["y"]) == ([0, 1], pytest.approx([0.2, 0.8]))
    assert (three["x"], three["y"]) == ([0, 0.5, 1], [0.2, 0.4, 0.9])
    assert (two["series"], three["series"]) == ("2 layers", "3 layers")


def test_runs_that_are_not_a_sweep_are_refused(finished_run, tmp_path):
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
