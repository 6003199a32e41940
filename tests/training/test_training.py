"""What a training computes: golden first steps, clipping, schedules, accumulation."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from helpers import new_run, quick_settings

import minirelu as mr
from minirelu.compute import Workspace, global_norm, update
from minirelu.runs.prepare import create_run
from minirelu.text.batches import batch
from minirelu.training import trainer
from minirelu.training.schedule import kept_steps, learning_rate, probe_steps


@pytest.mark.parametrize("mlp", ["reference", "dense", "sparse"])
def test_golden_first_steps(mlp):
    """Losses and gradient norms of the first steps, as first measured.

    If this fails, something that decides results has changed: initial weights, batch order,
    forward, backward, clipping, Adam or the schedule. Changing the numbers is legitimate only if
    such a change was meant, and then it belongs in the change's description.
    """
    config = mr.ModelConfig(n_layers=2, n_heads=2, d_model=16, d_mlp=48, n_ctx=12, d_vocab=40)
    settings = mr.TrainConfig(
        steps=5, batch_size=4, learning_rate=3e-3, warmup_steps=2, clip_norm=0.5, compute=mlp
    )
    tokens = (np.arange(500) ** 2 + np.arange(500) // 7) % 40
    params = mr.init_params(config, seed=7)
    m, v = mr.Parameters(config), mr.Parameters(config)
    measured = []
    for step in range(1, 6):
        sequences = batch(tokens, step, 4, 12, seed=7)
        loss, grads = mr.loss_and_grads(params, sequences[:, :-1], sequences[:, 1:], config, mlp)
        norm = global_norm(grads)
        update(params, grads, dict(m=m, v=v), step, learning_rate(step, settings), settings, norm)
        measured.append((loss, norm))
    np.testing.assert_allclose(measured, GOLDEN, rtol=2e-5)


GOLDEN = [  # (loss, gradient norm) of steps 1 to 5
    (3.687370, 1.493634),
    (3.697559, 1.235442),
    (3.668665, 0.872071),
    (3.632183, 0.827323),
    (3.721364, 0.781889),
]


def test_every_route_learns_the_same_in_fifty_steps(text_file, tmp_path):
    """Rounding differs between the routes, and grows; what is learned does not differ."""
    losses = {}
    for mlp in ("reference", "sparse", "dense", "auto"):
        settings = quick_settings(text_file, steps=50, compute=mlp)
        run = create_run(settings, tmp_path / mlp)
        assert mr.train(run)
        losses[mlp] = [record["loss"] for record in run.metrics("train")]
    assert losses["reference"][-1] < losses["reference"][0] - 0.5
    for mlp, measured in losses.items():
        np.testing.assert_allclose(measured, losses["reference"], rtol=2e-5, err_msg=mlp)


def test_a_step_uses_its_own_batch(finished_run):
    """Any step can be made again from the folder: its weights before, and the batch by number."""
    run, settings = finished_run, finished_run.settings.train
    for before in (0, 1, 2, 8):  # steps with weights on disk
        step = before + 1
        sequences = batch(run.train_tokens, step, settings.batch_size, 16, settings.seed)
        loss, _ = mr.loss_and_grads(
            run.params(before), sequences[:, :-1], sequences[:, 1:], run.config
        )
        assert run.metrics("train")[before]["loss"] == pytest.approx(loss, rel=1e-6)


def test_clipping_and_decay():
    """A long gradient is shortened; matrices decay, vectors don't."""
    config = mr.ModelConfig(1, 1, 4, 6, n_ctx=4, d_vocab=5)
    settings = mr.TrainConfig(clip_norm=0.5, weight_decay=0.25, beta1=0.0, beta2=0.0, adam_eps=1.0)
    rng = np.random.default_rng(0)
    params, grads = mr.Parameters(config, np.float64), mr.Parameters(config, np.float64)
    params.flat[:], grads.flat[:] = rng.normal(size=(2, params.flat.size))
    before = {name: p.copy() for name, p in params.items()}
    m, v = mr.Parameters(config, np.float64), mr.Parameters(config, np.float64)
    norm = global_norm(grads)
    assert norm > 0.5
    update(params, grads, dict(m=m, v=v), 1, 0.1, settings, norm)
    for name, p in params.items():
        g = grads[name] * (0.5 / norm)
        decay = 0.25 if p.ndim == 2 else 0.0
        # without memory (betas 0) Adam's step is g / (|g| + eps)
        expected = before[name] - 0.1 * (g / (np.abs(g) + 1.0) + decay * before[name])
        np.testing.assert_allclose(p, expected, rtol=1e-12, err_msg=name)


def test_a_short_gradient_is_not_clipped():
    config = mr.ModelConfig(1, 1, 4, 6, n_ctx=4, d_vocab=5)
    for clip_norm in (0.0, 1e9):
        settings = mr.TrainConfig(clip_norm=clip_norm)
        params, grads = mr.Parameters(config), mr.Parameters(config)
        grads.flat[:] = 3.0
        m, v = mr.Parameters(config), mr.Parameters(config)
        update(params, grads, dict(m=m, v=v), 1, 0.1, settings, global_norm(grads))
        np.testing.assert_allclose(m.flat, 0.3, rtol=1e-5)


def test_micro_batches_give_the_gradient_of_the_batch(odd):
    params = mr.init_params(odd, dtype=np.float64)
    sequences = np.random.default_rng(0).integers(0, 101, (6, 10))
    whole = trainer.accumulated_grads(
        params, sequences, odd, mr.TrainConfig(batch_size=6), Workspace()
    )
    for parts in (2, 3, 6):
        settings = mr.TrainConfig(batch_size=6, micro_batches=parts)
        loss, _, grads = trainer.accumulated_grads(params, sequences, odd, settings, Workspace())
        assert loss == pytest.approx(whole[0], rel=1e-12)
        np.testing.assert_allclose(grads.flat, whole[2].flat, rtol=1e-9, atol=1e-14)


def test_learning_rate_warms_up_and_decays():
    c = mr.TrainConfig(steps=100, learning_rate=2.0, warmup_steps=4, final_lr=0.1)
    assert [learning_rate(s, c) for s in (1, 2, 4)] == [0.5, 1.0, 2.0]
    assert learning_rate(52, c) == pytest.approx(1.1) and learning_rate(100, c) == pytest.approx(
        0.2
    )
    constant = dataclasses.replace(c, schedule="constant")
    assert learning_rate(100, constant) == 2.0
    assert learning_rate(1, dataclasses.replace(c, warmup_steps=0)) == pytest.approx(2.0, rel=1e-3)


def test_probes_fall_on_the_grid():
    steps = probe_steps(mr.TrainConfig(steps=700, probe_every=100))
    assert steps == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 700]
    assert probe_steps(mr.TrainConfig(steps=3)) == [0, 1, 2, 3]


def test_fewer_weights_are_kept_when_disk_is_short():
    steps = [0, 1, 2, 4, 8, 16, 32]
    assert kept_steps(steps, 10, budget=70) == set(steps)
    assert kept_steps(steps, 10, budget=69) == {32, 8, 2, 0}
    assert kept_steps(steps, 10, budget=0) == {32}


def test_training_learns(finished_run, text_file, tmp_path):
    """A model of text made of ten words comes near to its entropy, ln 10 per word."""
    run = new_run(tmp_path, text_file, steps=150, learning_rate=0.02, batch_size=16)
    mr.train(run)
    marks, last = run.corpus["baselines"], run.probes()[-1]
    assert last["val_loss"] < marks["unigram"] - 0.1
