"""What moved a pre-activation: the parts sum to the change, and each is what its name says."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from helpers import new_run

import minirelu as mr
from minirelu.death import split
from minirelu.death.split import PARTS, split_update
from minirelu.errors import UserError
from minirelu.model.transformer import forward
from minirelu.runs.run import Run


def test_the_parts_sum_to_the_change(study):
    run = study.runs("base")[0]
    for step in (8, 24):
        for of_layer in split_update(run, step):
            change = of_layer.after - of_layer.before
            assert np.abs(change).max() > 1e-3
            np.testing.assert_allclose(of_layer.parts.sum(axis=0), change, atol=1e-6)


def test_before_is_the_margin(study):
    run = study.runs("base")[0]
    params = run.params(16)
    _, acts = forward(params, run.probe_tokens[:, :-1], run.config)
    for l, of_layer in enumerate(split_update(run, 16)):
        largest = acts[f"blocks.{l}.mlp.hook_pre"].max(axis=(0, 1))
        np.testing.assert_allclose(of_layer.before, largest, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "changes, zero",
    [
        (dict(weight_decay=0.0), "decay"),
        (dict(beta1=0.0), "momentum"),
        (dict(intervene=("freeze params=embed.*",)), None),
    ],
)
def test_a_part_that_is_switched_off_is_zero(study, changes, zero):
    run = study.runs("base")[0]
    train = dataclasses.replace(run.settings.train, **changes)
    other = Run(run.folder, dataclasses.replace(run.settings, train=train))
    for of_layer in split_update(other, 16):
        parts = dict(zip(PARTS, of_layer.parts, strict=True))
        for name in ("decay", "momentum"):
            assert np.any(parts[name] != 0) == (name != zero)


def test_a_frozen_rest_leaves_the_input_as_it_is(study, monkeypatch):
    """With the input's part forced to 0 by keeping all that is below, only own parts remain."""
    run = study.runs("base")[0]
    real = split.compute.update

    def only_keys(params, *rest):
        before = {n: p.copy() for n, p in params.items() if not n.endswith(("W_in", "b_in"))}
        real(params, *rest)
        for name, p in before.items():
            params[name][...] = p

    monkeypatch.setattr(split.compute, "update", only_keys)
    first = split_update(run, 16)[0]  # layer 0: nothing with hidden units is below it
    assert np.abs(first.parts[PARTS.index("input")]).max() == 0
    assert np.abs(first.parts[PARTS.index("gradient")]).max() > 0


def test_another_optimizer_is_refused(text_file, tmp_path):
    run = new_run(tmp_path, text_file, optimizer="sgd", keep_optimizer_at=(4,))
    mr.train(run)
    with pytest.raises(UserError, match="adamw"):
        split_update(run, 4)
