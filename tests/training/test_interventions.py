"""Interventions: what is frozen stays, resuming gives the same bits, mistakes are named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from helpers import new_run, quick_settings, result, stop_after

import minirelu as mr
from minirelu.errors import UserError
from minirelu.training.interventions import INTERVENTIONS, parse_interventions


def test_frozen_parameters_stay_and_the_others_do_not(text_file, tmp_path):
    run = new_run(tmp_path, text_file, intervene=("freeze params=embed.*,blocks.0.*",))
    assert mr.train(run)
    first, last = run.params(0), run.params()
    for name, p in last.items():
        frozen = name.startswith(("embed.", "blocks.0."))
        assert np.array_equal(p, first[name]) == frozen, name


def test_a_frozen_parameter_does_not_count_in_the_gradient_norm(text_file, tmp_path):
    """As if its gradient were not computed: others are not clipped for its sake."""
    frozen = new_run(tmp_path, text_file, "frozen", intervene=("freeze params=*",), steps=2)
    assert mr.train(frozen)
    assert [record["grad_norm"] for record in frozen.metrics("train")] == [0.0, 0.0]


def test_parameters_can_be_frozen_for_some_steps_only(text_file, tmp_path):
    run = new_run(tmp_path, text_file, intervene=("freeze params=ln_final.w first=3 last=8",))
    assert mr.train(run)
    w = {step: run.params(step)["ln_final.w"] for step in run.steps}
    assert not np.array_equal(w[0], w[1]) and not np.array_equal(w[1], w[2])
    assert np.array_equal(w[2], w[4]) and np.array_equal(w[4], w[8])
    assert not np.array_equal(w[8], w[12])


def test_units_with_zero_updates_stay(text_file, tmp_path):
    run = new_run(tmp_path, text_file, intervene=("zero_update layer=1 units=0-3,30",))
    assert mr.train(run)
    first, last = run.params(0), run.params()
    units = [0, 1, 2, 3, 30]
    others = np.setdiff1d(np.arange(32), units)
    for name in ("W_in", "b_in", "W_out"):
        before, after = (p[f"blocks.1.mlp.{name}"] for p in (first, last))
        np.testing.assert_array_equal(before[units], after[units])
        assert np.all((before != after)[others].reshape(len(others), -1).any(axis=1))
    assert not np.array_equal(first["blocks.0.mlp.W_in"][0], last["blocks.0.mlp.W_in"][0])


@pytest.mark.parametrize("compute", ["auto", "reference"])
def test_an_interrupted_run_with_interventions_ends_with_the_same_bits(
    text_file, tmp_path, compute
):
    given = dict(
        intervene=("freeze params=embed.W_E first=4 last=9", "zero_update layer=0 units=5"),
        compute=compute, l1=1e-3, optimizer="sgd_momentum", learning_rate=0.5,
    )  # fmt: skip
    whole = new_run(tmp_path, text_file, "whole", **given)
    assert mr.train(whole)
    parts = new_run(tmp_path, text_file, "parts", **given)
    while not mr.train(parts, should_stop=stop_after(5)):
        parts = mr.Run.open(parts.folder)
    assert result(parts) == result(whole)


def test_on_step_is_called_before_and_after_the_update(text_file, tmp_path):
    seen = []

    def before_only(state, grads, step):
        grads["ln_final.w"][...] = 0

    def around(state, grads, step):
        w = state.params["embed.W_E"].copy()
        yield
        seen.append((step, np.array_equal(w, state.params["embed.W_E"])))
        state.params["embed.W_E"][...] = w

    run = new_run(tmp_path, text_file, steps=3, weight_decay=0.0)
    assert mr.train(run, on_step=before_only)
    assert np.array_equal(run.params()["ln_final.w"], run.params(0)["ln_final.w"])
    other = new_run(tmp_path, text_file, "other", steps=3)
    assert mr.train(other, on_step=around)
    assert seen == [(1, False), (2, False), (3, False)]
    assert np.array_equal(other.params()["embed.W_E"], other.params(0)["embed.W_E"])


@pytest.mark.parametrize(
    "text, words",
    [
        ("freze params=embed.*", "no intervention 'freze'; there are freeze, "),
        ("freeze parms=embed.*", "freeze has no setting 'parms'; it has"),
        ("freeze first=x", "first=x is not of type int"),
        ("freeze first=0", "first: 0 is not allowed"),
        ("", "must be text"),
        ("freeze params=embed.W_X", "no parameter is called 'embed.W_X' (did you mean 'embed.W_E'"),
        ("zero_update layer=7 units=1", "the model has layers 0 to 1"),
        ("zero_update layer=1 units=1-32", "layer 1 has units 0 to 31"),
        ("zero_update layer=1 units=a", "units=a is not like 0-15,20"),
    ],
)
def test_mistakes_are_named(text_file, text, words):
    with pytest.raises(UserError) as e:
        quick_settings(text_file, intervene=(text,))
    assert words in str(e.value)


def test_the_page_has_every_intervention_with_its_settings_and_their_defaults():
    page = Path(__file__).parents[2] / "tutorials/interventions.md"
    lines = page.read_text(encoding="utf-8").splitlines()
    for name, kind in INTERVENTIONS.items():
        (row,) = (line for line in lines if line.startswith(f"| `{name}` |"))
        for f in dataclasses.fields(kind):
            text = row if f.name not in ("first", "last") else "\n".join(lines)
            assert f"`{f.name}={f.default}`" in text, name


def test_intervention_settings_are_typed():
    (freeze,) = parse_interventions(["freeze params='embed.*' last=9"])
    assert (freeze.params, freeze.first, freeze.last) == ("embed.*", 1, 9)
