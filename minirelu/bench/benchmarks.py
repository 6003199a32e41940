"""The benchmarks: one MLP, a whole training step, AdamW, threads, watching."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minirelu.bench import peers as peer
from minirelu.bench.timing import alternate
from minirelu.compute import Workspace, global_norm, loss_and_grads, update
from minirelu.config import ModelConfig, TrainConfig
from minirelu.kernels import adam as adam_kernel
from minirelu.kernels import mlp_route
from minirelu.model.parameters import Parameters, init_params
from minirelu.threads import own_threads, set_threads
from minirelu.training.optimizers import OPTIMIZERS

Array = np.ndarray
Times = dict[str, list[float]]
SHARES_ON = (0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02)


def model_of_width(d_mlp: int) -> ModelConfig:
    """Preset ``plain``, another d_mlp."""
    return ModelConfig(6, 4, 128, d_mlp, n_ctx=256, d_vocab=4096, init="nanodo")


def made_batch(config: ModelConfig, n_tokens: int = 2048) -> tuple[Array, Array]:
    """Inputs and targets, drawn at random: speed does not depend on what is read."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, config.d_vocab, (max(1, n_tokens // config.n_ctx), config.n_ctx + 1))
    return drawn[:, :-1].copy(), drawn[:, 1:].copy()


class OurStep:
    """One training step of ours at a call: gradients, norm, clipping, AdamW."""

    def __init__(
        self, params: Parameters, tokens: Array, targets: Array, config: ModelConfig,
        train: TrainConfig, lr: float,
    ) -> None:  # fmt: skip
        self.params = Parameters(config, params.dtype)
        self.params.flat[:] = params.flat
        self.grads = Parameters(config, params.dtype)
        slots = OPTIMIZERS[train.optimizer].slots
        self.slots = {name: Parameters(config, params.dtype) for name in slots}
        self.given = (tokens, targets, config)
        self.train, self.lr, self.step, self.workspace = train, lr, 0, Workspace()

    def __call__(self) -> float:
        """Make one step, and return its loss."""
        self.step += 1
        loss, _ = loss_and_grads(
            self.params, *self.given, self.train.compute, self.workspace, self.grads
        )
        norm = global_norm(self.grads)
        update(self.params, self.grads, self.slots, self.step, self.lr, self.train, norm)
        return loss


def mlp_arrays(d_mlp: int, share_on: float, N: int = 2048, C: int = 128) -> dict[str, Array]:
    """Random inputs and weights of an MLP, with biases that leave this share of the pairs on."""
    rng = np.random.default_rng(0)
    a = {
        name: rng.standard_normal(shape, dtype=np.float32)
        for name, shape in (
            ("x", (N, C)), ("W_in", (d_mlp, C)), ("W_out", (d_mlp, C)), ("dy", (N, C)),
        )
    }  # fmt: skip
    a["W_in"] /= np.float32(np.sqrt(C))
    pre = a["x"][:64] @ a["W_in"].T
    a["b_in"] = np.full(d_mlp, -np.quantile(pre, 1 - share_on), np.float32)
    return a


def our_mlp(a: dict[str, Array], mlp: str) -> Callable[[], dict[str, Array]]:
    """Forward and backward of one MLP; a call returns ``y``, ``dx`` and the weights' gradients."""
    ws, y, dx = Workspace(), np.empty_like(a["x"]), np.empty_like(a["x"])
    grads = {name: np.empty_like(a[name]) for name in ("W_in", "b_in", "W_out")}
    results = {"y": y, "dx": dx} | {"d" + name: grad for name, grad in grads.items()}

    def call() -> dict[str, Array]:
        with own_threads():
            y.fill(0)
            kept = mlp_route.mlp_forward(a["x"], a, y, mlp, ws, "bench")
            mlp_route.mlp_backward(a["dy"], a["x"], a, kept, dx, grads, ws)
        return results

    return call


def mlp_times(d_mlp: int, share_on: float, peers: list[str], rounds: int) -> Times:
    """One MLP, forward and backward, 2048 tokens, d_model 128; both of our routes, and peers."""
    a = mlp_arrays(d_mlp, share_on)
    contestants = {
        "minirelu": our_mlp(a, "auto"),
        "dense": our_mlp(a, "dense"),
        "sparse": our_mlp(a, "sparse"),
        **{name: peer.mlp(name, a) for name in peers},
    }
    return alternate(contestants, rounds, calls=2)


def step_times(
    params: Parameters, tokens: Array, targets: Array, config: ModelConfig, peers: list[str],
    rounds: int,
) -> tuple[Times, dict[str, float]]:  # fmt: skip
    """A whole training step from the same weights, and each contestant's loss at those weights.

    The learning rate is so small that the weights, and with them who is on, stay what they are.
    """
    train, lr = TrainConfig(), 1e-8
    given = (params, tokens, targets, config, train, lr)
    steps: dict[str, Callable[[], float]] = {"minirelu": OurStep(*given)}
    steps |= {name: peer.step(name, *given) for name in peers}
    losses = {name: step() for name, step in steps.items()}
    return alternate(steps, rounds), losses


def adam_times(n: int, peers: list[str], rounds: int) -> Times:
    """Norm, clipping and AdamW over n parameters."""
    p, g, m, v = np.ones((4, n), np.float32)

    def ours() -> None:
        norm = adam_kernel.global_norm(g)
        adam_kernel.adam_step(p, g, m, v, 1, 1e-3, 0.9, 0.95, 1e-8, 0.1, 1 / norm)

    contestants: dict[str, Callable[[], Any]] = {"minirelu": ours}
    if "torch" in peers:
        contestants["torch"] = peer.adamw(n)
    return alternate(contestants, rounds)


def thread_times(d_mlp: int, rounds: int, threads: int) -> Times:
    """Our step with one thread, and with all of them."""
    config = model_of_width(d_mlp)
    step = OurStep(init_params(config), *made_batch(config), config, TrainConfig(), 1e-8)

    def with_threads(n: int) -> Callable[[], None]:
        def call() -> None:
            set_threads(n)
            step()

        return call

    try:
        return alternate({f"{n} threads": with_threads(n) for n in (1, threads)}, rounds)
    finally:
        set_threads(threads)


def watching_times(d_mlp: int, rounds: int) -> Times:
    """A probe of 2048 tokens, with everything that is counted, and the same pass without."""
    from minirelu.kernels import transformer as kernels
    from minirelu.sparsity.measure import measure
    from minirelu.sparsity.usage import in_sequence_percentile, usage

    config = model_of_width(d_mlp)
    params, (tokens, targets), ws = init_params(config), made_batch(config), Workspace()
    sequences = np.concatenate([tokens, targets[:, -1:]], axis=1)

    def forward() -> None:
        with own_threads():
            saved = kernels.forward(params, tokens, config, "auto", ws, lambda x, kept: None)
            kernels.loss_forward(params, targets, saved, ws)

    def probe() -> None:
        counts, _ = measure(params, sequences, config, "auto", ws)
        usage(counts)
        in_sequence_percentile(counts, 50)
        in_sequence_percentile(counts, 50, over="all")

    return alternate({"forward": forward, "probe": probe}, rounds)
