"""The dense and the sparse MLP against the reference: the same gradients, at every density."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minirelu.errors import UserError
from minirelu.kernels import mlp_route
from minirelu.kernels.watching import watch
from minirelu.kernels.workspace import Workspace
from minirelu.model.mlp import mlp_backward, mlp_forward
from minirelu.model.unit_activity import unit_activity
from minirelu.threads import most_threads, own_threads, set_threads

NAMES = ("post", "y", "dx", "W_in", "b_in", "W_out")


def inputs(N: int, C: int, F: int, seed: int = 0, dtype=np.float64) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {"x": (N, C), "W_in": (F, C), "b_in": (F,), "W_out": (F, C), "dy": (N, C)}
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


def with_density(a: dict[str, np.ndarray], density: float) -> dict[str, np.ndarray]:
    """Set the biases so that this share of the pairs is on."""
    pre = a["x"] @ a["W_in"].T
    at = np.quantile(pre, 1 - density) if 0 < density < 1 else (pre.max() + 1) * (1 - 2 * density)
    return {**a, "b_in": np.full_like(a["b_in"], -at)}


def by_reference(a: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    with np.errstate(all="ignore"):
        y, saved = mlp_forward(a["x"], a["W_in"], a["b_in"], a["W_out"], None)
        dx, dW_in, db_in, dW_out, _ = mlp_backward(a["dy"], a["W_in"], a["W_out"], saved)
    return dict(zip(NAMES, (saved[2], y, dx, dW_in, db_in, dW_out), strict=True))


def by_kernels(a: dict[str, np.ndarray], mlp: str, ws: Workspace | None = None):
    ws = ws or Workspace()
    (N, _), F = a["x"].shape, len(a["W_in"])
    found = {"y": np.zeros_like(a["x"])}
    with own_threads():
        kept = mlp_route.mlp_forward(a["x"], a, found["y"], mlp, ws, "test")
        found["post"] = mlp_route.plain_post(kept, N, F)
        found["dx"] = np.full_like(a["x"], 7)  # what was there before must not matter
        grads = {name: np.full_like(a[name], 7) for name in ("W_in", "b_in", "W_out")}
        mlp_route.mlp_backward(a["dy"], a["x"], a, kept, found["dx"], grads, ws)
    return found | grads, kept


def check(a: dict[str, np.ndarray], mlp: str, ws: Workspace | None = None, least: float = 0):
    """Agree to 1e-12, relative to the result's size, or to ``least`` where that is larger."""
    expected, (found, _) = by_reference(a), by_kernels(a, mlp, ws)
    for name in NAMES:
        size = max(least, np.linalg.norm(expected[name]))
        error = np.linalg.norm(found[name] - expected[name])
        assert error <= 1e-12 * size, f"{name}: relative error {error / size:.1e}"


@pytest.mark.parametrize("mlp", ["dense", "sparse"])
@pytest.mark.parametrize("density", [0, 0.001, 0.5, 1])
@pytest.mark.parametrize(
    "N, C, F", [(1, 1, 1), (257, 12, 37), (512, 16, 1030), (700, 130, 513), (3, 5, 2048)]
)
def test_same_gradients_at_every_density(mlp, density, N, C, F):
    a = with_density(inputs(N, C, F), density)
    share = np.mean(by_reference(a)["post"] > 0)
    assert share == pytest.approx(density, abs=max(1e-3, 1 / (N * F)))
    check(a, mlp)


@pytest.mark.parametrize("mlp", ["dense", "sparse"])
def test_one_single_pair(mlp):
    a = inputs(600, 8, 700)
    a["x"] = np.abs(a["x"])
    a["W_in"] = -np.abs(a["W_in"])
    a["b_in"][:] = 0
    a["W_in"][611] = 0
    a["x"][:, 0] = 0
    a["x"][300, 0] = 1
    a["W_in"][611, 0] = 1
    assert np.argwhere(by_reference(a)["post"] > 0).tolist() == [[300, 611]]
    check(a, mlp)


@pytest.mark.parametrize("mlp", ["dense", "sparse"])
def test_silent_units_and_idle_tokens(mlp):
    a = with_density(inputs(520, 9, 530), 0.1)
    a["b_in"][::3] = -1e3  # units that are on nowhere
    a["x"][::7] = 0  # tokens that only their biases could switch on, and those are negative
    a["b_in"] = -np.abs(a["b_in"])
    post = by_reference(a)["post"]
    assert not post[:, ::3].any() and not post[::7].any() and post.any()
    check(a, mlp)
    found, _ = by_kernels(a, mlp)
    for name in ("W_in", "b_in", "W_out"):
        assert np.all(found[name][::3] == 0), "a silent unit has no gradient"
    assert np.all(found["y"][::7] == 0) and np.all(found["dx"][::7] == 0)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 600), st.integers(1, 20), st.integers(1, 1100), st.floats(0, 1),
    st.integers(0, 1000), st.sampled_from(["dense", "sparse", "auto"]),
)  # fmt: skip
def test_any_shape_and_density(N, C, F, density, seed, mlp):
    # terms are about 1 in size, and a few of them may cancel
    check(with_density(inputs(N, C, F, seed), density), mlp, least=1)


@pytest.mark.parametrize("mlp", ["dense", "sparse"])
def test_float32_is_as_close_as_float32_can_be(mlp):
    a = with_density(inputs(512, 64, 700), 0.1)
    b = {name: v.astype(np.float32) for name, v in a.items()}
    exact = by_reference({name: v.astype(np.float64) for name, v in b.items()})
    found, _ = by_kernels(b, mlp)
    for name in NAMES:
        assert found[name].dtype == np.float32
        error = np.linalg.norm(found[name] - exact[name]) / np.linalg.norm(exact[name])
        assert error < 1e-6, name


def test_memory_used_before_changes_nothing():
    ws = Workspace()
    for density, mlp in ((1, "dense"), (0.02, "sparse"), (0.9, "sparse"), (0.1, "sparse")):
        check(with_density(inputs(300, 8, 600), density), mlp, ws=ws)


SPECIAL = {
    "nan": np.nan, "inf": np.inf, "-inf": -np.inf, "-0": -0.0, "denormal": 1e-310,
    "-denormal": -1e-310,
}  # fmt: skip


@pytest.mark.parametrize("mlp", ["dense", "sparse"])
@pytest.mark.parametrize("name", SPECIAL)
def test_special_pre_activations_behave_as_in_the_reference(mlp, name):
    a = with_density(inputs(300, 4, 40), 0.2)
    a["W_in"][7] = 0
    a["b_in"][7] = SPECIAL[name]  # so every pre-activation of unit 7 is that
    with np.errstate(all="ignore"):
        expected, (found, _) = by_reference(a), by_kernels(a, mlp)
        for key in NAMES:
            np.testing.assert_allclose(
                found[key], expected[key], rtol=1e-11, atol=1e-11, err_msg=key
            )
    assert np.isnan(found["y"]).any() == (name == "nan"), "a NaN is never lost"
    on = name in ("inf", "denormal")
    assert np.any(found["b_in"][7] != 0) == on


@pytest.mark.parametrize("mlp", ["dense", "sparse"])
def test_a_nan_input_reaches_the_loss(mlp):
    a = with_density(inputs(300, 4, 40), 0.05)
    a["x"][290, 2] = np.nan
    found, _ = by_kernels(a, mlp)
    assert np.isnan(found["y"][290]).all()
    assert np.isfinite(found["y"][:290]).all()


def test_auto_takes_the_list_when_few_are_on_and_only_then():
    for density, is_sparse in ((0.02, True), (0.2, True), (0.5, False), (1, False)):
        _, kept = by_kernels(with_density(inputs(2000, 8, 600), density), "auto")
        assert (kept.start is not None) == is_sparse, density
    check(with_density(inputs(2000, 8, 600), 0.02), "auto")


def test_share_on():
    a = with_density(inputs(2000, 8, 600), 0.13)
    found = mlp_route.share_on(a["x"], a["W_in"], a["b_in"], Workspace())
    sample = a["x"][[i * 2000 // mlp_route.SAMPLE for i in range(mlp_route.SAMPLE)]]
    assert found == np.mean(sample @ a["W_in"].T + a["b_in"] > 0)
    assert found == pytest.approx(0.13, abs=0.03)


@pytest.mark.parametrize("mlp", ["dense", "sparse"])
@pytest.mark.parametrize("B, T", [(1, 1), (3, 100), (2, 300), (5, 64), (1, 700)])
def test_watching(mlp, B, T):
    a = with_density(inputs(B * T, 6, 530), 0.1)
    ws, y = Workspace(), np.zeros_like(a["x"])
    kept = mlp_route.mlp_forward(a["x"], a, y, mlp, ws, "test")
    did = watch(kept, B, T, 530)
    expected = unit_activity(by_reference(a)["post"].reshape(B, T, 530))
    np.testing.assert_array_equal(did.on, expected.on)
    np.testing.assert_array_equal(did.first, expected.first)
    assert np.abs(did.total - expected.total).max() <= T  # where a value rounds to the next 2**-20


@pytest.mark.parametrize("mlp", ["dense", "sparse"])
def test_same_bits_with_one_thread_and_two(mlp):
    if most_threads() < 2:
        pytest.skip("needs two threads")
    a = with_density(inputs(1500, 32, 1500, dtype=np.float32), 0.1)
    found = []
    try:
        for threads in (1, 2):
            set_threads(threads)
            found.append(by_kernels(a, mlp)[0])
    finally:
        set_threads(None)
    for name in NAMES:
        np.testing.assert_array_equal(found[0][name], found[1][name], err_msg=name)


def test_an_unknown_route_is_refused():
    with pytest.raises(UserError, match="mlp: 'fast' is not allowed"):
        mlp_route.check_route("fast")


def as_plain_python(run):
    """What ``compiling.parallel`` makes of a kernel, without a compiler or threads."""

    def plain(pieces, *args, scratch=None):
        for piece in range(pieces):
            run.__wrapped__(piece, *args, *([] if scratch is None else [scratch[0]]))

    return plain


def test_kernels_run_as_plain_python(monkeypatch):
    """What the compiler sees is readable Python that gives the same numbers."""
    a = with_density(inputs(5, 3, 7), 0.4)
    for mlp in ("dense", "sparse"):
        compiled, _ = by_kernels(a, mlp)
        for module, kernels in (
            (dense_mlp, ("dense_forward_kernel", "units_times_tokens",
                              "dense_backward_kernel")),
            (sparse_mlp, ("sparse_forward_kernel", "sparse_backward_tokens",
                               "sparse_backward_units")),
        ):  # fmt: skip
            for name in kernels:
                monkeypatch.setattr(module, name, as_plain_python(getattr(module, name)))
        plain, _ = by_kernels(a, mlp)
        monkeypatch.undo()
        for name in NAMES:
            np.testing.assert_allclose(plain[name], compiled[name], rtol=1e-12, atol=1e-14)
