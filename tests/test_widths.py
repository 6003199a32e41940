"""Layers of different width, as pruning makes them: everything works, down to a single unit."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import (
    check_fails_plainly,
    command,
    quick_settings,
    random_params,
    random_tokens,
    result,
    stop_after,
)

import minirelu as mr
from minirelu.compute import evaluate
from minirelu.death.history import History
from minirelu.estimate import flops
from minirelu.figures import KINDS, figures_of
from minirelu.generation import generate
from minirelu.model.activations import mlp_names
from minirelu.report.page import write_report
from minirelu.report.units import unit_data
from minirelu.runs.checkpoint import checkpoint_folder, save_checkpoint
from minirelu.runs.formats import write_counts
from minirelu.runs.prepare import create_run
from minirelu.sparsity.contexts import unit_contexts
from minirelu.sparsity.measure import measure
from minirelu.sweeps.folder import finished_runs
from minirelu.sweeps.running import run_sweep
from minirelu.sweeps.sweep import Sweep

WIDTHS = (3, 40, 1)
SMALL = mr.ModelConfig(3, n_heads=3, d_model=12, d_mlp=WIDTHS, n_ctx=9, d_vocab=101)
ROUTES = ("dense", "sparse")


def settings(text_file: Path, d_mlp: int | tuple[int, ...] = WIDTHS, **train) -> mr.Config:
    tables = quick_settings(
        text_file, history_every=4, history_tokens=512, steps=24, **train
    ).tables()
    tables["model"] |= {"n_layers": 3, "d_mlp": d_mlp}
    return mr.Config.from_tables(tables)


@pytest.fixture(scope="session")
def uneven(text_file, tmp_path_factory) -> mr.Run:
    """A finished run with a history of its units; for reading only."""
    folder = tmp_path_factory.mktemp("widths") / "uneven"
    run = create_run(settings(text_file, keep_optimizer_at=(4,)), folder)
    assert mr.train(run)
    return run


@pytest.fixture(scope="session")
def even(text_file, tmp_path_factory) -> mr.Run:
    """The same with one width."""
    run = create_run(settings(text_file, 40), tmp_path_factory.mktemp("widths") / "even")
    assert mr.train(run)
    return run


@pytest.fixture
def copied(uneven, tmp_path) -> Path:
    return Path(shutil.copytree(uneven.folder, tmp_path / "copied"))


# --- the model


def without(params: mr.Parameters, config: mr.ModelConfig) -> mr.Parameters:
    """The model with the first units of each layer only."""
    kept = mr.Parameters(config, params.dtype)
    for name in kept:
        rows = len(kept[name]) if ".mlp." in name and not name.endswith("b_out") else None
        kept[name][...] = params[name][:rows]
    return kept


@pytest.mark.parametrize("bias", [True, False])
def test_a_model_without_units_equals_the_wide_one_with_those_units_off(bias):
    """Forward and gradients: an independent referee, the model of one width."""
    wide = dataclasses.replace(SMALL, d_mlp=40, bias=bias)
    config = dataclasses.replace(SMALL, bias=bias)
    params = random_params(wide)
    for l, F in enumerate(WIDTHS):
        params[f"blocks.{l}.mlp.W_out"][F:] = 0
    tokens, targets = random_tokens(wide, 2, 9), random_tokens(wide, 2, 9, seed=1)
    kept = without(params, config)
    logits, acts = mr.forward(kept, tokens, config)
    assert [acts[name].shape[-1] for name in mlp_names(config)] == list(WIDTHS)
    np.testing.assert_allclose(logits, mr.forward(params, tokens, wide)[0], rtol=1e-12, atol=1e-12)

    grads = mr.backward(kept, acts, mr.cross_entropy(logits, targets)[1], config)
    _, of_wide = mr.loss_and_grads(params, tokens, targets, wide, compute="reference")
    expected = without(of_wide, config)
    for name in grads:
        np.testing.assert_allclose(grads[name], expected[name], rtol=1e-9, atol=1e-12, err_msg=name)


def test_the_gradient_of_every_tensor_is_that_of_the_loss():
    params, rng = random_params(SMALL, seed=3), np.random.default_rng(4)
    tokens, targets = random_tokens(SMALL, 2, 8, seed=4), random_tokens(SMALL, 2, 8, seed=5)
    _, grads = mr.loss_and_grads(params, tokens, targets, SMALL, compute="reference")
    for name, p in params.items():
        direction, before, h = rng.normal(size=p.shape), p.copy(), 2e-6

        def loss(at: float, p=p, before=before, direction=direction) -> float:
            p[...] = before + at * direction
            value = mr.cross_entropy(mr.forward(params, tokens, SMALL)[0], targets)[0]
            p[...] = before
            return value

        numerical, analytical = (loss(h) - loss(-h)) / (2 * h), (grads[name] * direction).sum()
        assert analytical == pytest.approx(numerical, rel=1e-5, abs=1e-7), name


@pytest.mark.parametrize("act_fn", ["relu", "relu2", "leaky_relu", "gelu", "topk"])
@pytest.mark.parametrize("compute", ROUTES)
def test_kernels_equal_the_reference(compute, act_fn):
    config = dataclasses.replace(SMALL, act_fn=act_fn, act_k=1)
    if compute == "sparse" and act_fn in ("leaky_relu", "gelu"):
        pytest.skip("nothing is off")
    params = random_params(config)
    tokens, targets = random_tokens(config, 3, 9), random_tokens(config, 3, 9, seed=1)
    loss, grads = mr.loss_and_grads(params, tokens, targets, config, compute=compute)
    expected_loss, expected = mr.loss_and_grads(
        params, tokens, targets, config, compute="reference"
    )
    assert loss == pytest.approx(expected_loss, rel=1e-10)
    np.testing.assert_allclose(grads.flat, expected.flat, rtol=1e-8, atol=1e-11)
    counts = {}
    for how in (compute, "reference"):
        counts[how], _ = measure(params, np.pad(tokens, ((0, 0), (0, 1))), config, compute=how)
    for a, b in zip(counts[compute].tokens_on, counts["reference"].tokens_on, strict=True):
        assert a.tolist() == b.tolist()


def test_topk_keeps_no_more_than_the_narrowest_layer_has():
    with pytest.raises(mr.UserError, match="act_k: 2 units cannot be kept of d_mlp 1"):
        dataclasses.replace(SMALL, act_fn="topk", act_k=2)


# --- runs


def test_settings_and_weights_come_back_from_disk(uneven):
    again = mr.Run.open(uneven.folder)
    assert again.config.d_mlp == WIDTHS and again.settings == uneven.settings
    params = again.params()
    assert [params[f"blocks.{l}.mlp.W_in"].shape[0] for l in range(3)] == list(WIDTHS)
    probe = uneven.probe_tokens
    nats, _ = evaluate(params, probe[:, :-1], probe[:, 1:], again.config)
    assert nats.mean() == pytest.approx(uneven.probes()[-1]["val_loss"], rel=1e-5)


@pytest.mark.parametrize("at", [1, 6])
def test_a_resumed_run_has_the_bits_of_an_undisturbed_one(uneven, text_file, tmp_path, at):
    run = create_run(settings(text_file, keep_optimizer_at=(4,)), tmp_path / "stopped")
    assert not mr.train(run, should_stop=stop_after(at))
    assert mr.train(mr.Run.open(run.folder))
    assert result(run) == result(uneven)


def test_a_branch_has_its_parent_s_bits(uneven, tmp_path):
    child = mr.branch(uneven, 4, uneven.settings, tmp_path / "child")
    assert mr.train(child)
    assert result(child) == result(uneven)


def test_a_branch_cannot_change_the_widths(uneven, tmp_path):
    tables = uneven.settings.tables()
    tables["model"]["d_mlp"] = [3, 41, 1]
    with pytest.raises(mr.UserError, match="d_mlp"):
        mr.branch(uneven, 4, mr.Config.from_tables(tables), tmp_path / "child")


@pytest.mark.parametrize("rebirth", ["redo every=4 tau=0.5", "replace rate=0.1 maturity=2"])
def test_units_are_reborn_in_layers_of_any_width(text_file, tmp_path, rebirth):
    run = create_run(settings(text_file, intervene=[rebirth]), tmp_path / "run")
    assert mr.train(run)


def test_a_history_follows_every_unit(uneven):
    history = History.of(uneven)
    assert [layer.tokens_on.shape[1] for layer in history.layers] == list(WIDTHS)
    last = uneven.counts(uneven.probes()[-1]["step"])
    for layer, tokens_on in zip(history.layers, last.tokens_on, strict=True):
        assert layer.tokens_on[-1].tolist() == tokens_on.tolist()


def test_contexts_and_the_page_of_units_have_every_unit(uneven):
    params = uneven.params()
    of_layers = unit_contexts(params, uneven.probe_tokens, uneven.config, k=3)
    assert [len(layer.tokens) for layer in of_layers] == list(WIDTHS)
    counts, _ = measure(params, uneven.probe_tokens, uneven.config, compute="reference")
    for contexts, on in zip(of_layers, counts.tokens_on, strict=True):
        assert ((contexts.firings[:, 0] > 0) == (on > 0)).all()
    layers = unit_data(uneven)["layers"]
    assert [layer["width"] for layer in layers] == [len(x["units"]) for x in layers] == [*WIDTHS]


def test_text_is_generated(uneven):
    tokens = generate(uneven.params(), [5, 7], uneven.config, 4, seed=0)
    assert len(list(tokens)) == 4


def test_a_sweep_may_vary_the_widths_by_layer(text_file, tmp_path):
    tables = settings(text_file).tables()
    tables["train"]["steps"] = 4
    del tables["model"]["d_mlp"]
    sweep = Sweep.build("tiny", None, tables, {"d_mlp": (14, WIDTHS)}, seeds=1)
    assert [point.name for point in sweep.points()] == ["d_mlp=14,seed=0", "d_mlp=3-40-1,seed=0"]
    assert run_sweep(sweep, tmp_path / "sweep") == {}
    assert Sweep.from_folder(tmp_path / "sweep") == sweep
    runs = [run for _, run in finished_runs(tmp_path / "sweep", sweep)]
    assert [run.config.d_mlp for run in runs] == [14, WIDTHS]
    with open(tmp_path / "sweep" / "sweep.csv", encoding="utf-8", newline="") as f:
        assert [row["layer"] for row in csv.DictReader(f)] == ["0", "1", "2"] * 2
    for name in ("price", "ladder"):
        data = KINDS[name].data(runs)
        assert len(KINDS[name].draw(data).axes) > 3
    assert [text for _, text in data["panels"][0]["x"]["ticks"]] == ["14", "3-40-1"]
    check_fails_plainly(command("figure", "fig3", tmp_path / "sweep"), "same width in all layers")


def test_arithmetic_counts_each_layer_by_its_width(text_file):
    at = {F: flops(settings(text_file, F)) for F in [(1, 1, 1), (3, 1, 1), (1, 40, 1), WIDTHS]}
    more = at[3, 1, 1] - at[1, 1, 1], at[1, 40, 1] - at[1, 1, 1]
    assert more[1] == pytest.approx(39 / 2 * more[0])
    assert at[WIDTHS] == pytest.approx(at[1, 1, 1] + sum(more))


# --- every command and figure


def test_every_figure_of_a_run_is_drawn(uneven):
    names = figures_of(uneven)
    assert {"fig1", "raster", "frequencies", "survival"} <= set(names)
    for name, (draw, _) in names.items():
        assert draw(uneven).axes, name


def test_the_report_lists_widths_layer_by_layer(copied, plain_figures):
    html = write_report(mr.Run.open(copied)).read_text(encoding="utf-8")
    assert "d_mlp 3, 40, 1," in html


def works(*arguments: object, cwd: Path | None = None) -> str:
    done = command(*arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_sparsity_names_each_layer_s_width(uneven, tmp_path):
    file = tmp_path / "measured.json"
    shown = works("sparsity", uneven.folder, "--tokens", 512, "--json", file)
    assert all(f"of {F}" in shown for F in WIDTHS)
    assert json.loads(file.read_text(encoding="utf-8"))["config"]["model"]["d_mlp"] == [*WIDTHS]


def test_compare_puts_it_beside_a_run_of_one_width(uneven, even, tmp_path):
    shown = works("compare", uneven.folder, even.folder, cwd=tmp_path)
    assert "model.d_mlp: 40, not [3, 40, 1]" in shown and "layer 2" in shown
    KINDS["fig1"].data([uneven, even])


def test_other_commands_work(copied, tmp_path, guessed_steps):
    works("sample", copied, "--prompt", "the", "--tokens", 3)
    assert "silent" in works("death", "history", copied)
    works("estimate", "--preset", "tiny", "--n-layers", 3, "--d-mlp", "3,40,1")
    shown = works("export", copied, "--format", "opt", tmp_path / "opt")
    assert "76 silent units were added" in shown and "40 of the widest" in shown
    works("sparsity", tmp_path / "opt", "--corpus", copied / "metrics.jsonl", "--tokens", 256)


def test_silent_units_are_searched_for_where_a_layer_has_none_that_fire_seldom(copied):
    run = mr.Run.open(copied)
    step, params = run.steps[-1], run.params()
    params["blocks.2.mlp.b_in"][:] = -1e3  # the layer's only unit
    shutil.rmtree(checkpoint_folder(run.checkpoints, step))
    save_checkpoint(run.checkpoints, step, params, {}, {}, config={}, metrics_bytes=0)
    write_counts(run.counts_file(step), measure(params, run.probe_tokens, run.config)[0])
    works("wake", copied, "--units", 2, "--budget", 20, "--tokens", 256, "--threads", 1)
    content = json.loads((copied / "death" / "wake.json").read_text(encoding="utf-8"))
    last = content["layers"][-1]
    assert (last["layer"], last["d_mlp"], last["silent"]) == (2, 1, 1)
    assert last["units"]["seldom"] == []


def test_twins_must_have_the_same_widths(uneven, even):
    check_fails_plainly(command("death", "overlap", uneven.folder, even.folder), "another shape")
