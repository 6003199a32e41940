"""What `estimate` says against what is there."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

import minirelu as mr
from minirelu import estimate
from minirelu.kernels.workspace import Workspace


def settings_of(**model_and_train) -> mr.Config:
    model = {k: v for k, v in model_and_train.items() if k in mr.ModelConfig.__dataclass_fields__}
    train = {k: v for k, v in model_and_train.items() if k not in model}
    return mr.Config.build("plain", options={"model": model, "train": train})


@pytest.mark.parametrize(
    "given",
    [
        dict(d_mlp=1024, n_layers=3),
        dict(d_mlp=256, d_model=64, d_vocab=20_000, n_layers=1),
        dict(d_mlp=4096, n_layers=2, n_ctx=100, batch_size=6, micro_batches=2),
    ],
)
def test_estimated_memory_is_that_of_the_workspace(given):
    settings = settings_of(**given)
    model, train = settings.model, settings.train
    n = train.batch_size // train.micro_batches
    tokens = np.zeros((n, model.n_ctx), int)
    workspace, params = Workspace(), mr.init_params(model)
    mr.loss_and_grads(params, tokens, tokens, model, "dense", workspace)
    parts = estimate.memory(settings)
    expected = sum(
        parts[p] for p in ("hidden units", "other activations", "logits", "scratch")
    )  # fmt: skip
    assert expected == pytest.approx(workspace.nbytes, rel=0.02)
    assert parts["weights"] == params.flat.nbytes
    assert parts["adamw"] == 2 * params.flat.nbytes


def test_flops_by_hand():
    settings = settings_of(
        n_layers=1, d_model=10, n_heads=1, d_mlp=7, n_ctx=4, d_vocab=11, batch_size=3
    )
    N = 12
    mlp = 6 * 2 * N * 10 * 7
    rest = 12 * 2 * N * 10 * 10 + 7 * 2 * N * 10 * 2 + 3 * 2 * N * 10 * 11
    assert estimate.flops(settings) == mlp + rest
    assert estimate.flops(settings, share_on=0) == mlp / 6 + rest


def test_step_time_is_positive_and_finite():
    settings = settings_of(n_layers=3, d_model=32, d_mlp=2048, n_ctx=64, d_vocab=300)
    each = estimate.step_time(settings)
    assert 0 < each.once_sparse <= each.at_first < 10
    seconds, _ = estimate.run_seconds(settings, 10)
    assert math.isfinite(seconds) and seconds > 0


def test_reading_scales_with_the_corpus_and_drawing_with_the_model(tmp_path, monkeypatch):
    (tmp_path / "text").write_text("the cat sees a dog\n" * 5000, encoding="utf-8")
    text = dict(corpus=str(tmp_path / "text"))
    ticks = iter([0.0, 2.0] * 2)
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: next(ticks))
    monkeypatch.setattr(estimate, "_TIMED_MB", 0.02)
    read = [
        estimate.reading_seconds(mr.Config.build("tiny", options={"text": text | limit}))
        for limit in ({}, dict(limit_mb=0.01))
    ]
    assert read == [pytest.approx(2 * 95 / 20, rel=0.01), 2]
    each = estimate.StepTime(0.5, 0.2)
    fewer, more = (
        estimate.drawing_seconds(settings_of(n_layers=2, **probe), each)
        for probe in (dict(probe_tokens=4096), dict(probe_tokens=8192))
    )
    deep = estimate.drawing_seconds(settings_of(n_layers=12, probe_tokens=4096), each)
    assert 0 < fewer < more and fewer < deep


def test_a_model_too_large_for_memory_is_refused_with_advice(monkeypatch):
    settings = settings_of(d_mlp=8192, batch_size=16)
    needed = sum(estimate.memory(settings).values())
    monkeypatch.setattr(estimate, "available_memory", lambda: needed)
    estimate.refuse_too_large(settings)
    monkeypatch.setattr(estimate, "available_memory", lambda: int(0.8 * needed))
    with pytest.raises(ValueError, match="--micro-batches 2 fits") as e:
        estimate.refuse_too_large(settings)
    assert "13,589,504 parameters" in str(e.value) and "hidden units: " in str(e.value)
    smaller = dataclasses.replace(settings.train, micro_batches=2)
    estimate.refuse_too_large(dataclasses.replace(settings, train=smaller))
    monkeypatch.setattr(estimate, "available_memory", lambda: 1_000_000)
    with pytest.raises(ValueError, match="choose a smaller d_mlp"):
        estimate.refuse_too_large(settings)
    monkeypatch.setattr(estimate, "available_memory", lambda: None)
    estimate.refuse_too_large(settings)
