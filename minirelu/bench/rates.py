"""How near each kernel comes to what the machine can do: the points of the roofline figure."""

from __future__ import annotations

import statistics
from typing import NamedTuple

import numpy as np

from minirelu.bench.benchmarks import mlp_arrays
from minirelu.bench.timing import alternate
from minirelu.compute import Workspace
from minirelu.kernels import adam as adam_kernel
from minirelu.kernels import dense_mlp as dense
from minirelu.kernels import sparse_mlp as sparse
from minirelu.kernels.activations import RELU
from minirelu.kernels.attention import (
    attention_backward_kernel,
    attention_forward_kernel,
    scratch_size,
)
from minirelu.kernels.compiling import BLOCK, TILE, n_blocks
from minirelu.kernels.layernorm import layernorm_forward_kernel
from minirelu.kernels.sparse_mlp import GROUP
from minirelu.threads import own_threads


class Rate(NamedTuple):
    """A kernel's work: arithmetic, least traffic to memory, and time."""

    name: str
    group: str
    flops: float
    bytes: float
    seconds: float


def kernel_rates(d_mlp: int = 8192, share_on: float = 0.05, rounds: int = 5) -> list[Rate]:
    """Measure the kernels alone, 2048 tokens, d_model 128.

    Bytes are those of the inputs and outputs, each counted once: what must move at least.
    """
    N, C, F, H, T = 2048, 128, d_mlp, 4, 256
    B, D, blocks = N // T, C // H, n_blocks(N)
    a, f32 = mlp_arrays(F, share_on), np.float32
    x, W_in, b_in, W_out, dy = (a[name] for name in ("x", "W_in", "b_in", "W_out", "dy"))
    y, dx = (np.zeros((N, C), f32) for _ in range(2))
    dW_in, dW_out = (np.zeros((F, C), f32) for _ in range(2))
    values, dpre = (np.zeros((blocks, F * BLOCK + 1), f32) for _ in range(2))
    post, no_slope = np.zeros_like(values), np.zeros((blocks, 0), f32)
    start, token = np.zeros((blocks, F + 1), np.int32), np.zeros(values.shape, np.uint16)
    db_part, tiles, groups = np.zeros((blocks, F), f32), n_blocks(F, TILE), n_blocks(F, GROUP)
    q, k, v, z, dz, dq, dk, dv = np.random.default_rng(1).standard_normal((8, N, C), dtype=f32)
    log_total = np.zeros((B, H, T), f32)
    scratch = Workspace().scratch(scratch_size(T, D) + TILE * (BLOCK + C), f32)
    p, g, m, s = np.ones((4, 20_000_000), f32)
    scale = np.ones(N, f32)
    calls = {
        "dense forward": lambda: dense.dense_forward_kernel(
            blocks, RELU, x, W_in, b_in, W_out, y, post, no_slope, scratch=scratch
        ),
        "dense, one weight's gradient": lambda: dense.units_times_tokens(
            tiles, post, dy, dW_out, scratch=scratch
        ),
        "dense backward to x": lambda: dense.dense_backward_kernel(
            blocks, RELU, f32(0), dy, W_in, W_out, post, no_slope, dx, db_part, scratch=scratch
        ),
        "sparse forward": lambda: sparse.sparse_forward_kernel(
            blocks, RELU, x, W_in, b_in, W_out, y, start, token, values, scratch=scratch
        ),
        "sparse backward to x": lambda: sparse.sparse_backward_tokens(
            blocks, RELU, f32(0), dy, W_in, W_out, start, token, values, dpre, dx
        ),
        "sparse, weights' gradients": lambda: sparse.sparse_backward_units(
            groups, dy, x, start, token, values, dpre, dW_in, db_part[0], dW_out
        ),
        "attention forward": lambda: attention_forward_kernel(
            B * H, q, k, v, z, log_total, scratch=scratch
        ),
        "attention backward": lambda: attention_backward_kernel(
            B * H, dz, q, k, v, z, log_total, dq, dk, dv, scratch=scratch
        ),
        "layer norm": lambda: layernorm_forward_kernel(blocks, x, x[0], x[1], f32(1e-5), y, scale),
        "AdamW": lambda: adam_kernel.adam_step(p, g, m, s, 1, 1e-3, 0.9, 0.95, 1e-8, 0.1),
        "gradient norm": lambda: adam_kernel.global_norm(g),
    }
    with own_threads():
        times = {n: statistics.median(t) for n, t in alternate(calls, rounds, calls=2).items()}
    pairs = int(start[:, -1].sum())
    NC, FC, product = N * C, F * C, 2 * N * C * F
    causal = 2 * N * T / 2 * C  # one product of the scores' half that is not masked
    work = {  # group, arithmetic, numbers moved
        "dense forward": ("MLP, dense", 2 * product, 3 * NC + 2 * FC + N * F),
        "dense, one weight's gradient": ("MLP, dense", product, N * F + NC + FC),
        "dense backward to x": ("MLP, dense", 2 * product, 2 * NC + 2 * FC + 2 * N * F),
        "sparse forward": (
            "MLP, sparse", product + 2 * C * pairs, 3 * NC + 2 * FC + 1.5 * pairs,
        ),
        "sparse backward to x": ("MLP, sparse", 4 * C * pairs, 2 * NC + 2 * FC + 2.5 * pairs),
        "sparse, weights' gradients": ("MLP, sparse", 4 * C * pairs, 2 * NC + 2 * FC + 2.5 * pairs),
        "attention forward": ("attention", 2 * causal, 4 * NC),
        "attention backward": ("attention", 5 * causal, 8 * NC),
        "layer norm": ("element by element", 8 * NC, 2 * NC),
        "AdamW": ("element by element", 14 * p.size, 7 * p.size),
        "gradient norm": ("element by element", 2 * p.size, p.size),
    }  # fmt: skip
    return [
        Rate(name, group, flops, 4 * numbers, times[name])
        for name, (group, flops, numbers) in work.items()
    ]
