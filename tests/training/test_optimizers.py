"""Optimizers: by hand, through a whole training, and what is kept of them."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import new_run, result, stop_after
from safetensors.numpy import load_file

import minirelu as mr
from minirelu import estimate
from minirelu.training.optimizers import OPTIMIZERS, momentum_step, sgd_step


def test_sgd_and_momentum_by_hand():
    p, velocity = np.array([1.0, -2.0]), np.zeros(2)
    g = np.array([0.5, 4.0])
    sgd_step(p, g, step=1, lr=0.1, decay=0.2, g_scale=0.5)
    np.testing.assert_allclose(p, [1 - 0.1 * (0.25 + 0.2), -2 - 0.1 * (2 - 0.4)])
    p = np.array([1.0, -2.0])
    for step in (1, 2):
        momentum_step(p, g, velocity, step=step, lr=0.1, momentum=0.9, decay=0.0)
    np.testing.assert_allclose(velocity, 1.9 * g)
    np.testing.assert_allclose(p, [1 - 0.1 * 2.9 * 0.5, -2 - 0.1 * 2.9 * 4])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_interrupted_training_ends_with_the_same_bits(name, text_file, tmp_path):
    given = dict(optimizer=name, learning_rate=1.0 if "sgd" in name else 0.01)
    whole = new_run(tmp_path, text_file, "whole", **given)
    assert mr.train(whole)
    losses = [record["loss"] for record in whole.metrics("train")]
    assert losses[-1] < losses[0]
    parts = new_run(tmp_path, text_file, "parts", **given)
    while not mr.train(parts, should_stop=stop_after(5)):
        pass
    assert result(parts) == result(whole)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_checkpoints_and_estimate_follow_from_the_slots(name, text_file, tmp_path):
    run = new_run(tmp_path, text_file, optimizer=name, steps=2)
    assert mr.train(run)
    kept = load_file(run.checkpoints / "step_000002" / "optimizer.safetensors")
    slots = OPTIMIZERS[name].slots
    assert set(kept) == {f"{slot}.{p}" for slot in slots for p in run.params()}
    assert estimate.memory(run.settings)[name] == len(slots) * 4 * mr.n_params(run.config)
