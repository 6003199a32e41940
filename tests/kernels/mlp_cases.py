"""An MLP by plain NumPy, and by the kernels: what the tests here compare."""

from __future__ import annotations

import numpy as np

from minirelu.kernels import mlp_route
from minirelu.kernels.available import COMPILED, SPARSE
from minirelu.kernels.workspace import Workspace
from minirelu.model.activation_functions import activation_function
from minirelu.threads import own_threads

# Every activation function by every route that it has.
ROUTES = [(name, "dense") for name in COMPILED] + [(name, "sparse") for name in SPARSE]
NAMES = ("post", "penalty", "y", "dx", "W_in", "b_in", "W_out")
Arrays = dict[str, np.ndarray]


def inputs(N: int, C: int, F: int, seed: int = 0, dtype=np.float64) -> Arrays:
    rng = np.random.default_rng(seed)
    shapes = {"x": (N, C), "W_in": (F, C), "b_in": (F,), "W_out": (F, C), "dy": (N, C)}
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


def with_density(a: Arrays, density: float) -> Arrays:
    """Set the biases so that this share of the pre-activations is above 0."""
    pre = a["x"] @ a["W_in"].T
    at = np.quantile(pre, 1 - density) if 0 < density < 1 else (pre.max() + 1) * (1 - 2 * density)
    return {**a, "b_in": np.full_like(a["b_in"], -at)}


def by_reference(a: Arrays, act_fn: str = "relu", act_k: int = 1, l1: float = 0) -> Arrays:
    act, N = activation_function(act_fn, act_k=act_k), len(a["x"])
    with np.errstate(all="ignore"):
        pre = a["x"] @ a["W_in"].T + a["b_in"]
        post = act.forward(pre)
        penalty = l1 * np.abs(post).sum() / N if l1 else 0.0
        dpost = a["dy"] @ a["W_out"].T + (l1 / N * np.sign(post) if l1 else 0)
        dpre = act.backward(dpost, pre)
        results = (post, penalty, post @ a["W_out"], dpre @ a["W_in"], dpre.T @ a["x"])
        results += (dpre.sum(axis=0), post.T @ a["dy"])
    return dict(zip(NAMES, results, strict=True))


def by_kernels(
    a: Arrays, compute: str, act_fn: str = "relu", act_k: int = 1, l1: float = 0,
    ws: Workspace | None = None,
) -> tuple[Arrays, mlp_route.Kept]:  # fmt: skip
    ws = ws or Workspace()
    (N, _), F = a["x"].shape, len(a["W_in"])
    results = {"y": np.zeros_like(a["x"])}
    with own_threads():
        kept = mlp_route.mlp_forward(a["x"], a, results["y"], compute, ws, "test", act_fn, act_k)
        results["post"] = mlp_route.plain_post(kept, N, F)
        results["penalty"] = l1 * mlp_route.sum_of_sizes(kept, N, F) / N if l1 else 0.0
        results["dx"] = np.full_like(a["x"], 7)  # what was in memory before must not matter
        grads = {name: np.full_like(a[name], 7) for name in ("W_in", "b_in", "W_out")}
        mlp_route.mlp_backward(a["dy"], a["x"], a, kept, results["dx"], grads, ws, l1)
    return results | grads, kept


def check(
    a: Arrays, compute: str, act_fn: str = "relu", act_k: int = 1, l1: float = 0,
    ws: Workspace | None = None, least: float = 0,
) -> None:  # fmt: skip
    """Agree to 1e-12, relative to the result's size, or to ``least`` where that is larger."""
    expected = by_reference(a, act_fn, act_k, l1)
    results, _ = by_kernels(a, compute, act_fn, act_k, l1, ws)
    for name in NAMES:
        size = max(least, np.linalg.norm(expected[name]))
        error = np.linalg.norm(results[name] - expected[name])
        assert error <= 1e-12 * size, f"{name}: relative error {error / size:.1e}"
