"""Pruned runs: their parent's weights, moments, text and batches; trained on like any other."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from helpers import check_fails_plainly, command, new_run, result, stop_after

import minirelu as mr
from minirelu.errors import UserError
from minirelu.interop.model import open_model
from minirelu.pruning.choice import Choice
from minirelu.pruning.pruned_run import KEPT, pruned_run
from minirelu.runs.checkpoint import load_slots, new_slots


@pytest.fixture(scope="module")
def parent(text_file, tmp_path_factory) -> mr.Run:
    run = new_run(
        tmp_path_factory.mktemp("parent"), text_file,
        steps=16, keep_optimizer_at=(12,), learning_rate=0.1,
    )  # fmt: skip
    assert mr.train(run)
    return run


SOME = [np.arange(32) % 3 > 0, np.arange(32) < 9]
EVERY = [np.ones(32, bool)] * 2


def test_with_every_unit_kept_it_goes_on_as_its_parent_did(parent, tmp_path):
    child = pruned_run(parent, 12, EVERY, tmp_path / "child", more_steps=4)
    assert not mr.train(child, should_stop=stop_after(2))  # also when it is interrupted
    assert mr.train(child)
    assert np.array_equal(child.params().flat, parent.params().flat)
    of_child = {r["step"]: r["loss"] for r in child.metrics("train")}
    assert of_child == {r["step"]: r["loss"] for r in parent.metrics("train") if r["step"] > 12}


def test_weights_and_moments_are_the_parent_s_without_those_that_went(parent, tmp_path):
    run = pruned_run(parent, 12, SOME, tmp_path / "child", by="hand")
    assert run.config.d_mlp == (21, 9) and run.steps == [12]
    before, after = parent.params(12), run.params()
    slots = load_slots(parent.checkpoints, 12, new_slots(parent.settings))
    left = load_slots(run.checkpoints, 12, new_slots(run.settings))
    for whole, part in ((before, after), (slots["m"], left["m"]), (slots["v"], left["v"])):
        assert whole.flat.any()
        for l, stay in enumerate(SOME):
            for name in ("W_in", "b_in", "W_out"):
                tensor = f"blocks.{l}.mlp.{name}"
                assert np.array_equal(part[tensor], whole[tensor][stay])
        assert np.array_equal(part["embed.W_E"], whole["embed.W_E"])
    kept = json.loads((run.folder / KEPT).read_text(encoding="utf-8"))
    assert kept == [np.flatnonzero(stay).tolist() for stay in SOME]
    assert run.parent["run"] == parent.name and run.parent["step"] == 12
    assert "hidden units removed by hand" in run.parent["changed"]
    assert mr.train(run)  # nothing is left to do
    assert [p["step"] for p in run.probes()] == [12]


def test_removing_silent_units_leaves_the_probe_as_it_was(parent, tmp_path):
    before = parent.probes()[-1]
    on = parent.counts(16).tokens_on
    assert any((of_layer == 0).any() for of_layer in on)
    run = pruned_run(parent, 16, [of_layer > 0 for of_layer in on], tmp_path / "child")
    after = run.probes()[-1]
    assert after["val_loss"] == pytest.approx(before["val_loss"], rel=1e-6)
    assert after["per_batch"] == [1, 1] and before["per_batch"] != [1, 1]
    for l, of_layer in enumerate(on):
        assert np.array_equal(run.counts(16).tokens_on[l], of_layer[of_layer > 0])


@pytest.mark.parametrize("keep", [SOME, [np.zeros(32, bool), np.arange(32) < 3]])
def test_it_trains_on_to_the_same_bits_after_an_interruption(parent, keep, tmp_path):
    runs = [pruned_run(parent, 12, keep, tmp_path / name, more_steps=6) for name in ("one", "two")]
    assert mr.train(runs[0])
    assert not mr.train(runs[1], should_stop=stop_after(3))
    assert mr.train(mr.Run.open(runs[1].folder))
    assert result(runs[0]) == result(runs[1])
    assert runs[0].metrics("train")[-1]["step"] == 18


def test_without_optimizer_state_the_moments_begin_at_zero(parent, tmp_path):
    run = pruned_run(parent, 4, SOME, tmp_path / "child", more_steps=3)
    assert not load_slots(run.checkpoints, 4, new_slots(run.settings))["v"].flat.any()
    assert "the optimizer's state begins empty" in run.parent["changed"]
    assert mr.train(run)


def test_a_folder_that_is_taken_is_left_alone(parent, tmp_path):
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="not an empty folder"):
        pruned_run(parent, 16, SOME, tmp_path)
    with pytest.raises(UserError, match="has no weights of step 5"):
        pruned_run(parent, 5, SOME, tmp_path / "child")
    assert [f.name for f in tmp_path.iterdir()] == ["mine.txt"]


def test_a_choice_is_the_same_every_time_and_within_its_limit(parent):
    found = Choice("first_order", "global", 512, within=0.02).evidence(parent, 16)
    choice = Choice("first_order", "global", 512, within=0.02)
    first, second = (choice.keep(parent, found) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert sum(k.sum() for k in first) < 64
    for wrong in ({}, {"share": 0.5, "within": 0.1}, {"share": 2}, {"within": -1}):
        with pytest.raises(UserError, match="--share|--within"):
            Choice("first_order", "global", 512, **wrong)


def test_pruning_by_command_makes_a_run_for_every_other_command(parent, tmp_path):
    done = command(
        "prune", parent.folder, "--within", 2, "--tokens", 512, "--out", "pruned",
        "--fine-tune", 4, "--json", "found.json", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found["quality"]["pruned"]["loss"] <= 1.02 * found["quality"]["before"]["loss"]
    run = mr.Run.open(tmp_path / "pruned")
    assert list(run.config.mlp_widths) == [max(1, w) for w in found["widths"]]
    assert found["costs"][0] == {
        "what": "parameters", "before": parent.params().flat.size, "now": run.params().flat.size
    }  # fmt: skip
    if os.name != "nt":
        peak = found["costs"][-1]
        assert peak["what"].endswith("peak") and 20 < peak["now"] < 2 * peak["before"] < 4000
    assert run.steps[-1] == 20 and run.settings.train.steps == 20
    for what in (
        ("sample", "pruned", "--tokens", 3), ("sparsity", "pruned", "--tokens", 512),
        ("figure", "fig1", "pruned"), ("compare", "pruned", parent.folder),
        ("export", "pruned", "--format", "opt", "opt"),
        ("prune", "pruned", "--by", "random", "--tokens", 64),
        ("train", "--from", "pruned", "--at", 20, "--steps", 22, "--out", "branch"),
    ):  # fmt: skip
        done = command(*what, cwd=tmp_path)
        assert done.returncode == 0, (what, done.stderr)
    logits, _ = mr.forward(run.params(), run.probe_tokens[:2, :-1], run.config)
    exported = open_model(tmp_path / "opt")
    again, _ = mr.forward(exported.params, run.probe_tokens[:2, :-1], exported.config)
    assert np.allclose(logits, again, atol=1e-4)


def test_curves_by_command_over_seeds(parent, text_file, tmp_path):
    other = new_run(tmp_path, text_file, "other", steps=16, keep_optimizer_at=(12,),
                    learning_rate=0.1, seed=1)  # fmt: skip
    assert mr.train(other)
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- prune-made: begin -->\nold\n<!-- prune-made: end -->\nz\n",
                    encoding="utf-8")  # fmt: skip
    done = command(
        "prune", parent.folder, other.folder, "--tokens", 256, "--json", "found.json",
        "--figure", "found.png", "--page", f"{page}#prune-made", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert [s["seed"] for s in found["surveys"]] == [0, 1]
    for survey in found["surveys"]:
        assert len(survey["curves"]) == 6 * 4  # criteria; two layers, each, global
        for c in survey["curves"]:
            assert len(c["removable"]) == 2 and 0 <= c["removable"][0] <= c["removable"][1] <= 1
        # without any units all orders are the same
        ends = {round(c["points"][-1]["loss"], 5) for c in survey["curves"] if c["scope"] == "each"}
        assert len(ends) == 1
    assert (tmp_path / "found.png").is_file() and (tmp_path / "found.svg").is_file()
    text = page.read_text(encoding="utf-8")
    assert "| first_order |" in text and "\nold\n" not in text and text.endswith("z\n")
    assert (tmp_path / "page" / "prune-made.png").is_file()


@pytest.mark.parametrize(
    "options, words",
    [
        ([], ["name a run"]),
        (["nowhere"], ["no run in nowhere"]),
        (["RUN", "--tokens", 0], ["--tokens: 0"]),
        (["RUN", "--by", "size"], ["there is no criterion 'size'", "first_order"]),
        (["RUN", "--scope", "9", "--tokens", 64], ["a layer from 0 to 1"]),
        (["RUN", "--scope", "some", "--tokens", 64], ["each, global, or a layer"]),
        (["RUN", "--share", 0.5], ["go with --out or --trial"]),
        (["RUN", "--fine-tune", 5], ["go with --out or --trial"]),
        (["RUN", "--out", "x"], ["give --share", "--within"]),
        (["RUN", "--out", "x", "--share", 0.5, "--within", 1], ["give --share"]),
        (["RUN", "--out", "x", "--share", 2], ["--share: 2.0 is not allowed"]),
        (["RUN", "--out", "x", "--within", -1], ["--within: -1 is not allowed"]),
        (["RUN", "--out", "x", "--share", 0.5, "--fine-tune", -1], ["--fine-tune: -1"]),
        (["RUN", "--out", "x", "--trial", "y", "--share", 0.5], ["give one"]),
        (["RUN", "--out", "x", "--share", 0.5, "--figure", "p.png"], ["--figure goes with"]),
        (["RUN", "--out", "x", "--share", 0.5, "--corpus", "stdlib"], ["--corpus is for curves"]),
        (["RUN", "--out", "x", "--share", 0.5, "--step", 3], ["has no weights of step 3"]),
        (["RUN", "RUN", "--out", "x", "--share", 0.5], ["name one"]),
        (["RUN", "COPY", "--tokens", 64], ["the same seed"]),
        (["RUN", "--trial", "y", "--share", 0.5, "--step", 4], ["leave it out"]),
        (["RUN", "--page", "p.md", "--tokens", 64, "--by", "random"], ["cannot read p.md"]),
        (["RUN", "--step", 4, "--by", "second_order", "--tokens", 64], ["second moment"]),
        (["RUN", "--corpus", "short.txt", "--tokens", 64], ["too short"]),
    ],
)  # fmt: skip
def test_mistakes_get_one_plain_line(parent, options, words, tmp_path):
    (tmp_path / "short.txt").write_text("the cat sees a dog in the garden .", encoding="utf-8")
    copy = tmp_path / "copy"
    if "COPY" in options:
        shutil.copytree(parent.folder, copy)
    given = [{"RUN": parent.folder, "COPY": copy}.get(o, o) for o in options]
    check_fails_plainly(command("prune", *given, cwd=tmp_path), *words)
    assert not (tmp_path / "x").exists()


def test_an_opt_folder_is_pruned_on_a_text_that_is_given(parent, tmp_path, text_file):
    assert command("export", parent.folder, "--format", "opt", "opt", cwd=tmp_path).returncode == 0
    check_fails_plainly(command("prune", "opt", cwd=tmp_path), "has no text; give --corpus")
    done = command(
        "prune", "opt", "--corpus", text_file, "--tokens", 256, "--scope", "global", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "first_order" in done.stdout and "second_order" not in done.stdout
    check_fails_plainly(
        command("prune", "opt", "--share", 0.5, "--out", "x", cwd=tmp_path), "no run in opt"
    )
    smaller = json.loads((tmp_path / "opt" / "config.json").read_text(encoding="utf-8"))
    shutil.rmtree(tmp_path / "opt")
    assert smaller["ffn_dim"] == 32
