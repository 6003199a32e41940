"""Every other kernel against its NumPy reference."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from helpers import ODD, random_params, random_tokens
from hypothesis import given, settings
from hypothesis import strategies as st
from mlp_cases import ROUTES
from numba import njit

import minirelu as mr
from minirelu.errors import UserError
from minirelu.kernels import transformer as kernels
from minirelu.kernels.attention import (
    attention_backward_kernel,
    attention_forward_kernel,
    scratch_size,
)
from minirelu.kernels.exp import exp
from minirelu.kernels.mlp_route import plain_post
from minirelu.kernels.workspace import Workspace
from minirelu.model.attention import attention_backward, attention_forward
from minirelu.model.unit_activity import unit_activity
from minirelu.sparsity.measure import measure
from minirelu.threads import most_threads, set_threads

close = dict(rtol=1e-10, atol=1e-12)


@njit
def exps(x, y):
    for i in range(x.size):
        y[i] = exp(x[i])


def test_exp_is_accurate_in_float32():
    x = np.linspace(-87, 20, 200_001).astype(np.float32)
    y = np.empty_like(x)
    exps(x, y)
    error = np.abs(y / np.exp(x.astype(np.float64)) - 1)
    assert error.max() < 3e-7
    x = np.array([np.nan, -np.inf, -1e30, -0.0, 0.0], np.float32)
    y = np.empty_like(x)
    exps(x, y)
    assert np.isnan(y[0]) and np.all(y[1:3] == 0) and np.all(y[3:] == 1)


def test_exp_in_float64_equals_the_c_library():
    x, y = np.linspace(-700, 700, 1001), np.empty(1001)
    exps(x, y)
    np.testing.assert_allclose(y, np.exp(x), rtol=1e-15)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 200), st.sampled_from([(1, 1), (2, 3), (4, 8)]))
def test_attention_kernels_equal_the_reference(B, T, heads):
    H, D = heads
    C, N = H * D, B * T
    rng = np.random.default_rng(T)
    x, dout = rng.normal(size=(2, B, T, C))
    p = {"W_" + n: rng.normal(size=(C, C)) for n in "QKVO"} | {"b_" + n: None for n in "QKVO"}
    _, saved = attention_forward(x, p, H)
    q, k, v = (saved[n].reshape(N, C) for n in "qkv")
    z, log_total = np.empty((N, C)), np.empty((B, H, T))
    scratch = np.empty((8, scratch_size(T, D)))
    attention_forward_kernel(B * H, q, k, v, z, log_total, scratch=scratch)
    np.testing.assert_allclose(z, saved["z"].reshape(N, C), **close)

    _, dp = attention_backward(dout, x, p, saved)
    dz = dout.reshape(N, C) @ p["W_O"].T
    dq, dk, dv = (np.empty((N, C)) for _ in range(3))
    attention_backward_kernel(B * H, dz, q, k, v, z, log_total, dq, dk, dv, scratch=scratch)
    for name, d in (("Q", dq), ("K", dk), ("V", dv)):
        expected = dp["W_" + name]
        np.testing.assert_allclose(
            x.reshape(N, C).T @ d, expected, rtol=1e-9, atol=1e-10 * (1 + np.abs(expected).max())
        )


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4), st.integers(1, 300), st.integers(1, 1100), st.booleans(),
    st.sampled_from(ROUTES + [(name, "auto") for name, _ in ROUTES]), st.sampled_from([0, 0.01]),
    st.integers(0, 99),
)  # fmt: skip
def test_a_whole_step_equals_the_reference(B, T, V, bias, route, l1, seed):
    """Any number of tokens, any vocabulary: more or less than a block, and no multiple of one."""
    act_fn, compute = route
    size = dict(n_ctx=300, d_vocab=V, bias=bias)
    config = mr.ModelConfig(1, 2, 4, 9, **size, act_fn=act_fn, act_k=3)
    params = random_params(config, seed)
    tokens, targets = (np.random.default_rng(seed + i).integers(0, V, (B, T)) for i in (0, 1))
    given = (params, tokens, targets, config)
    loss, grads = mr.loss_and_grads(*given, compute="reference", l1=l1)
    fast_loss, fast = mr.loss_and_grads(*given, compute=compute, l1=l1)
    assert fast_loss == pytest.approx(loss, rel=1e-12, abs=1e-12)
    for name in grads:
        size = np.linalg.norm(grads[name]) + 1e-3  # some are 0 but for rounding
        assert np.linalg.norm(fast[name] - grads[name]) < 1e-11 * size, name


def test_huge_logits_are_safe():
    params = random_params(ODD)
    params["embed.W_E"][:] *= 1e4
    tokens = random_tokens(ODD, 2, 9)
    loss, grads = mr.loss_and_grads(params, tokens, tokens, ODD, compute="reference")
    fast_loss, fast = mr.loss_and_grads(params, tokens, tokens, ODD)
    assert np.isfinite(loss) and fast_loss == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(fast.flat, grads.flat, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", list(random_params(ODD)))
def test_a_nan_in_any_weight_reaches_the_loss(name):
    params, tokens = random_params(ODD, dtype=np.float32), random_tokens(ODD, 2, 9)
    params[name][...] = np.nan
    for mlp in ("dense", "sparse", "reference"):
        with np.errstate(all="ignore"):
            assert np.isnan(mr.loss_and_grads(params, tokens, tokens, ODD, compute=mlp)[0])


@pytest.mark.parametrize("mlp", ["dense", "sparse", "auto"])
def test_same_bits_with_one_thread_and_two(mlp):
    if most_threads() < 2:
        pytest.skip("needs two threads")
    config = mr.ModelConfig(2, 2, 32, 600, n_ctx=128, d_vocab=700, init="nanodo")
    params, tokens = mr.init_params(config), random_tokens(config, 8, 128)
    results = []
    try:
        for threads in (1, 2, 2):
            set_threads(threads)
            results.append(mr.loss_and_grads(params, tokens, tokens, config, compute=mlp))
    finally:
        set_threads(None)
    for loss, grads in results[1:]:
        assert loss == results[0][0]
        np.testing.assert_array_equal(grads.flat, results[0][1].flat)


def with_act_fn(config: mr.ModelConfig, act_fn: str) -> mr.ModelConfig:
    return dataclasses.replace(config, act_fn=act_fn, act_k=5)


def by_kernels(params, tokens, targets, config, compute, l1):
    grads = mr.Parameters(config, params.dtype)
    given = (params, tokens, targets, config, compute, Workspace(), grads)
    return kernels.loss_and_grads(*given, l1), grads


@pytest.mark.parametrize("act_fn, compute", ROUTES)
@pytest.mark.parametrize("l1", [0, 0.02])
def test_the_gradient_is_that_of_cross_entropy_plus_penalty(act_fn, compute, l1):
    config = with_act_fn(ODD, act_fn)
    params, tokens, targets = (random_params(config), *random_tokens(config, 6, 9).reshape(2, 3, 9))
    _, grads = by_kernels(params, tokens, targets, config, compute, l1)
    direction = np.random.default_rng(1).normal(size=params.flat.size)
    eps, start, sums = 1e-6, params.flat.copy(), []
    for sign in (1, -1):
        params.flat[:] = start + sign * eps * direction
        (cross_entropy, penalty), _ = by_kernels(params, tokens, targets, config, compute, l1)
        assert (penalty > 0) == (l1 > 0)
        sums.append(cross_entropy + penalty)
    slope = (sums[0] - sums[1]) / (2 * eps)
    assert grads.flat @ direction == pytest.approx(slope, rel=1e-6)


def test_the_penalty_is_the_mean_over_tokens_of_each_layer_s_sum():
    params, tokens = random_params(ODD), random_tokens(ODD, 3, 9)
    _, acts = mr.forward(params, tokens, ODD)
    sizes = [np.abs(acts[f"blocks.{l}.mlp.hook_post"]).sum(axis=-1).mean() for l in range(2)]
    for compute in ("dense", "sparse"):
        (_, penalty), _ = by_kernels(params, tokens, tokens, ODD, compute, l1=0.25)
        assert penalty == pytest.approx(0.25 * sum(sizes), rel=1e-13)


@pytest.mark.parametrize("act_fn, compute", ROUTES)
def test_same_bits_with_a_penalty_with_one_thread_and_two(act_fn, compute):
    if most_threads() < 2:
        pytest.skip("needs two threads")
    config = mr.ModelConfig(
        2, 2, 32, 600, n_ctx=128, d_vocab=700, init="nanodo", act_fn=act_fn, act_k=30
    )
    params, tokens = mr.init_params(config), random_tokens(config, 8, 128)
    results = []
    try:
        for threads in (1, 2):
            set_threads(threads)
            losses, grads = by_kernels(params, tokens, tokens, config, compute, l1=1e-3)
            results.append((losses, grads.flat.tobytes()))
    finally:
        set_threads(None)
    assert results[0] == results[1]


@pytest.mark.parametrize("act_fn, compute", ROUTES)
def test_evaluate_watches_what_counts_as_on(act_fn, compute):
    config = with_act_fn(ODD, act_fn)
    params, tokens = random_params(config), random_tokens(config, 3, 9)
    nats, activity = kernels.evaluate(params, tokens, tokens, config, compute, Workspace())
    (cross_entropy, _), _ = by_kernels(params, tokens, tokens, config, compute, l1=0)
    assert nats.mean() == pytest.approx(cross_entropy, rel=1e-12)
    off, ws = config.activation.off, Workspace()
    saved = kernels.forward(params, tokens, config, compute, ws)
    for kept, actual in zip(saved.mlps, activity, strict=True):
        expected = unit_activity(plain_post(kept, 27, 37).reshape(3, 9, 37), off)
        for name in ("on", "first", "total"):
            np.testing.assert_array_equal(getattr(actual, name), getattr(expected, name))


def test_a_workspace_does_not_change_results():
    config = mr.ModelConfig(2, 2, 8, (40, 50), n_ctx=20, d_vocab=90)
    params, ws = random_params(config, dtype=np.float32), Workspace()
    kept = mr.Parameters(config)
    for B, T in ((3, 20), (1, 7), (3, 20)):
        tokens = random_tokens(config, B, T)
        loss, grads = mr.loss_and_grads(params, tokens, tokens, config, workspace=ws, grads=kept)
        assert grads is kept
        again, fresh = mr.loss_and_grads(params, tokens, tokens, config)
        assert loss == again
        np.testing.assert_array_equal(grads.flat, fresh.flat)


def test_steps_allocate_no_large_arrays():
    import tracemalloc

    config = mr.ModelConfig(2, 2, 64, 1024, n_ctx=128, d_vocab=1000, init="nanodo")
    params, tokens = mr.init_params(config), random_tokens(config, 8, 128)
    ws, grads = Workspace(), mr.Parameters(config)
    for mlp in ("dense", "sparse"):
        peaks = []
        for _ in range(12):  # the first one compiles, and fills the workspace
            tracemalloc.start()
            mr.loss_and_grads(params, tokens, tokens, config, mlp, ws, grads)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert min(peaks[1:]) < 200_000, f"{mlp}: {peaks} bytes"  # other threads take some, too


@pytest.mark.parametrize("mlp", ["dense", "sparse", "auto"])
def test_measure_equals_the_reference_s_counts(mlp):
    config = mr.ModelConfig(2, 2, 8, (40, 50), n_ctx=20, d_vocab=90)
    params, sequences = random_params(config), random_tokens(config, 7, 21)
    counts, loss = measure(params, sequences, config, mlp)
    reference, reference_loss = measure(params, sequences, config, "reference")
    assert loss == pytest.approx(reference_loss, rel=1e-12)
    for name, array in reference.to_arrays().items():
        off = 147 if name.startswith("total") else 0  # a value may round to the next 2**-20
        np.testing.assert_allclose(counts.to_arrays()[name], array, 0, off, err_msg=name)


def test_grads_of_another_model_are_refused():
    params, tokens = random_params(ODD), random_tokens(ODD, 1, 3)
    for wrong in (mr.Parameters(ODD), mr.Parameters(mr.ModelConfig(1, 1, 2, 3, 4, 5), np.float64)):
        with pytest.raises(UserError, match="grads: of another"):
            mr.loss_and_grads(params, tokens, tokens, ODD, grads=wrong)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_tokens_of_any_integer_type(dtype):
    params, tokens = random_params(ODD), random_tokens(ODD, 3, 9)
    same = mr.loss_and_grads(params, tokens.astype(dtype)[:, ::-1], tokens.astype(dtype), ODD)
    loss, grads = mr.loss_and_grads(params, tokens[:, ::-1], tokens, ODD)
    assert same[0] == loss
    np.testing.assert_array_equal(same[1].flat, grads.flat)


def test_params_may_be_any_mapping():
    tokens = random_tokens(ODD, 2, 9)
    params = random_params(ODD)
    plain = {name: np.asfortranarray(p) for name, p in params.items()}
    loss, grads = mr.loss_and_grads(plain, tokens, tokens, ODD)
    assert loss == mr.loss_and_grads(params, tokens, tokens, ODD)[0]


@pytest.mark.parametrize("n", [0, -1, 100_000])
def test_a_wrong_number_of_threads_is_refused(n):
    with pytest.raises(UserError, match=f"threads: {n} is not allowed"):
        set_threads(n)


def test_evaluate_has_the_same_loss():
    tokens, targets = random_tokens(ODD, 3, 9), random_tokens(ODD, 3, 9, seed=1)
    params = random_params(ODD)
    nats, activity = kernels.evaluate(params, tokens, targets, ODD, "auto", Workspace())
    assert nats.mean() == pytest.approx(mr.loss_and_grads(params, tokens, targets, ODD)[0])
    assert [d.on.shape for d in activity] == [(3, 37), (3, 37)]
