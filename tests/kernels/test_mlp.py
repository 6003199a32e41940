"""The dense and the sparse MLP against the reference: the same gradients, at every density."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlp_cases import NAMES, ROUTES, by_kernels, by_reference, check, inputs, with_density

from minirelu.errors import UserError
from minirelu.kernels import activations, mlp_route
from minirelu.kernels.watching import watch
from minirelu.kernels.workspace import Workspace
from minirelu.model import activation_functions
from minirelu.model.activation_functions import activation_function, is_on
from minirelu.model.unit_activity import unit_activity
from minirelu.threads import most_threads, set_threads


@pytest.mark.parametrize("compute", ["dense", "sparse"])
@pytest.mark.parametrize("density", [0, 0.001, 0.5, 1])
@pytest.mark.parametrize(
    "N, C, F", [(1, 1, 1), (257, 12, 37), (512, 16, 1030), (700, 130, 513), (3, 5, 2048)]
)
def test_same_gradients_at_every_density(compute, density, N, C, F):
    a = with_density(inputs(N, C, F), density)
    share = np.mean(by_reference(a)["post"] > 0)
    assert share == pytest.approx(density, abs=max(1e-3, 1 / (N * F)))
    check(a, compute)


@pytest.mark.parametrize("compute", ["dense", "sparse"])
def test_same_gradients_with_a_single_pair_on(compute):
    a = inputs(600, 8, 700)
    a["x"] = np.abs(a["x"])
    a["W_in"] = -np.abs(a["W_in"])
    a["b_in"][:] = 0
    a["W_in"][611] = 0
    a["x"][:, 0] = 0
    a["x"][300, 0] = 1
    a["W_in"][611, 0] = 1
    assert np.argwhere(by_reference(a)["post"] > 0).tolist() == [[300, 611]]
    check(a, compute)


@pytest.mark.parametrize("compute", ["dense", "sparse"])
def test_same_gradients_with_silent_units_and_idle_tokens(compute):
    a = with_density(inputs(520, 9, 530), 0.1)
    a["b_in"][::3] = -1e3  # units that are on nowhere
    a["x"][::7] = 0  # tokens that only their biases could switch on, and those are negative
    a["b_in"] = -np.abs(a["b_in"])
    post = by_reference(a)["post"]
    assert not post[:, ::3].any() and not post[::7].any() and post.any()
    check(a, compute)
    actual, _ = by_kernels(a, compute)
    for name in ("W_in", "b_in", "W_out"):
        assert np.all(actual[name][::3] == 0), "a silent unit has no gradient"
    assert np.all(actual["y"][::7] == 0) and np.all(actual["dx"][::7] == 0)


@pytest.mark.parametrize("act_fn, compute", ROUTES)
@pytest.mark.parametrize("l1", [0, 0.3])
@pytest.mark.parametrize("N, C, F, k", [(257, 12, 37, 5), (600, 70, 513, 40)])
def test_same_gradients_for_every_activation_function(act_fn, compute, l1, N, C, F, k):
    check(inputs(N, C, F), compute, act_fn, k, l1)


@settings(max_examples=120, deadline=None)
@given(
    st.integers(1, 600), st.integers(1, 20), st.integers(1, 1100), st.floats(0, 1),
    st.integers(0, 1000), st.sampled_from(ROUTES + [(name, "auto") for name, _ in ROUTES]),
    st.sampled_from([0, 0.01, 2]),
)  # fmt: skip
def test_same_gradients_at_any_shape_and_density(N, C, F, density, seed, route, l1):
    act_fn, compute = route
    k = max(1, round(density * F))
    # terms are about 1 in size, and a few of them may cancel
    check(with_density(inputs(N, C, F, seed), density), compute, act_fn, k, l1, least=1)


@pytest.mark.parametrize("compute", ["dense", "sparse"])
@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 60), st.floats(0, 1), st.integers(0, 99))
def test_topk_keeps_exactly_k_and_breaks_ties_by_position(compute, N, F, share, seed):
    rng, k = np.random.default_rng(seed), max(1, round(share * F))
    a = {n: np.round(v) for n, v in inputs(N, 2, F, seed).items()}  # exact, and full of ties
    a["b_in"][rng.random(F) < 0.2] = np.nan
    actual, kept = by_kernels(a, compute, "topk", k, l1=N / 4)
    expected = by_reference(a, "topk", k, l1=N / 4)
    for name in NAMES:
        np.testing.assert_array_equal(actual[name], expected[name], err_msg=name)
    if compute == "sparse" and np.isnan(a["b_in"]).sum() < k:
        assert kept.start[:, -1].sum() == N * k


# of topk, rounding may decide which of two is larger
@pytest.mark.parametrize("act_fn, compute", [r for r in ROUTES if r[0] != "topk"])
def test_float32_is_as_close_as_float32_can_be(act_fn, compute):
    a = with_density(inputs(512, 64, 700), 0.1)
    b = {name: v.astype(np.float32) for name, v in a.items()}
    exact = by_reference({name: v.astype(np.float64) for name, v in b.items()}, act_fn, l1=0.5)
    actual, _ = by_kernels(b, compute, act_fn, l1=0.5)
    for name in NAMES:
        assert name == "penalty" or actual[name].dtype == np.float32
        error = np.linalg.norm(actual[name] - exact[name]) / np.linalg.norm(exact[name])
        assert error < 1e-6, name


def test_contents_of_reused_memory_do_not_matter():
    ws = Workspace()
    for density, compute in ((1, "dense"), (0.02, "sparse"), (0.9, "sparse"), (0.1, "sparse")):
        check(with_density(inputs(300, 8, 600), density), compute, ws=ws)


SPECIAL = {
    "nan": np.nan, "inf": np.inf, "-inf": -np.inf, "-0": -0.0, "denormal": 1e-310,
    "-denormal": -1e-310,
}  # fmt: skip


@pytest.mark.parametrize("act_fn, compute", ROUTES)
@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("l1", [0, 0.1])
def test_special_pre_activations_behave_as_in_the_reference(act_fn, compute, name, l1):
    a = with_density(inputs(300, 4, 40), 0.2)
    a["W_in"][7] = 0
    a["b_in"][7] = SPECIAL[name]  # so every pre-activation of unit 7 is that
    with np.errstate(all="ignore"):
        expected = by_reference(a, act_fn, 8, l1)
        actual, _ = by_kernels(a, compute, act_fn, 8, l1)
        for key in NAMES:
            np.testing.assert_allclose(
                actual[key], expected[key], rtol=1e-11, atol=1e-11, err_msg=key
            )
    if name == "nan":
        assert np.isnan(actual["y"]).all(), "a NaN is never lost"
    if act_fn == "relu":
        assert np.any(actual["b_in"][7] != 0) == (name in ("inf", "denormal"))


@pytest.mark.parametrize("compute", ["dense", "sparse"])
def test_a_nan_input_reaches_the_loss(compute):
    a = with_density(inputs(300, 4, 40), 0.05)
    a["x"][290, 2] = np.nan
    actual, _ = by_kernels(a, compute)
    assert np.isnan(actual["y"][290]).all()
    assert np.isfinite(actual["y"][:290]).all()


def test_auto_is_sparse_only_when_few_units_are_on():
    for density, is_sparse in ((0.02, True), (0.2, True), (0.5, False), (1, False)):
        _, kept = by_kernels(with_density(inputs(2000, 8, 600), density), "auto")
        assert (kept.start is not None) == is_sparse, density
    check(with_density(inputs(2000, 8, 600), 0.02), "auto")


def test_share_on_is_that_of_a_sample():
    a = with_density(inputs(2000, 8, 600), 0.13)
    actual = mlp_route.share_on(a["x"], a["W_in"], a["b_in"], Workspace())
    sample = a["x"][[i * 2000 // mlp_route.SAMPLE for i in range(mlp_route.SAMPLE)]]
    assert actual == np.mean(sample @ a["W_in"].T + a["b_in"] > 0)
    assert actual == pytest.approx(0.13, abs=0.03)


def test_auto_uses_topk_s_known_share_and_is_dense_without_zeros():
    a = with_density(inputs(500, 8, 600), 0.01)
    for act_fn, k, is_sparse in (
        ("topk", 6, True), ("topk", 400, False), ("relu2", 0, True), ("leaky_relu", 0, False),
        ("gelu", 0, False),
    ):  # fmt: skip
        _, kept = by_kernels(a, "auto", act_fn, k)
        assert (kept.start is not None) == is_sparse, act_fn


@pytest.mark.parametrize("act_fn, compute", ROUTES)
@pytest.mark.parametrize("B, T", [(1, 1), (3, 100), (2, 300), (5, 64), (1, 700)])
def test_watching_equals_the_reference(act_fn, compute, B, T):
    F, k, act = 530, 50, activation_function(act_fn, act_k=50)
    a, ws = with_density(inputs(B * T, 6, F), 0.1), Workspace()
    if act_fn == "topk":  # some of those that are kept are 0, and so not on
        a["W_in"][:20] = a["b_in"][:20] = 0
    kept = mlp_route.mlp_forward(a["x"], a, np.zeros_like(a["x"]), compute, ws, "test", act_fn, k)
    actual = watch(kept, B, T, F, act.off)
    post = by_reference(a, act_fn, k)["post"]
    assert 0 < is_on(post, act.off).mean() < 0.5
    expected = unit_activity(post.reshape(B, T, F), act.off)
    np.testing.assert_array_equal(actual.on, expected.on)
    np.testing.assert_array_equal(actual.first, expected.first)
    # where a value rounds to the next 2**-20
    assert np.abs(actual.total - expected.total).max() <= T


def test_watching_with_other_bounds_of_what_is_off():
    a, ws = inputs(300, 6, 40), Workspace()
    kept = mlp_route.mlp_forward(a["x"], a, np.zeros_like(a["x"]), "dense", ws, "test", "gelu")
    off = (-0.1, 0.25)
    actual = watch(kept, 3, 100, 40, off)
    expected = unit_activity(by_reference(a, "gelu")["post"].reshape(3, 100, 40), off)
    np.testing.assert_array_equal(actual.on, expected.on)
    assert np.abs(actual.total - expected.total).max() <= 100


@pytest.mark.parametrize("act_fn, compute", ROUTES)
def test_same_bits_with_one_thread_and_two(act_fn, compute):
    if most_threads() < 2:
        pytest.skip("needs two threads")
    a = with_density(inputs(1500, 32, 1500, dtype=np.float32), 0.1)
    actual = []
    try:
        for threads in (1, 2):
            set_threads(threads)
            actual.append(by_kernels(a, compute, act_fn, 150, l1=0.1)[0])
    finally:
        set_threads(None)
    for name in NAMES:
        np.testing.assert_array_equal(actual[0][name], actual[1][name], err_msg=name)


def test_leaky_relu_s_slope_is_that_of_the_reference():
    assert activations.LEAK == activation_functions.LEAK


@pytest.mark.parametrize(
    "compute, act_fn, message",
    [
        ("fast", "relu", "compute: 'fast' is not allowed; it must be one of auto, dense, sparse, "
                         "reference"),
        ("sparse", "gelu", "compute: sparse needs exact zeros, and gelu has none; choose auto, "
                           "dense or reference, or act_fn relu, relu2 or topk"),
        ("sparse", "leaky_relu", "leaky_relu has none"),
        ("auto", "mine", "act_fn: there are no kernels for mine; choose compute reference"),
    ],
)  # fmt: skip
def test_a_route_that_does_not_exist_is_refused(compute, act_fn, message):
    with pytest.raises(UserError, match=message):
        mlp_route.check_route(compute, act_fn)
