"""What this machine can do at best: matrix products, and moving memory."""

from __future__ import annotations

import statistics

import numpy as np

from minirelu.bench.timing import alternate
from minirelu.kernels.compiling import n_blocks, parallel
from minirelu.threads import own_threads

_BLOCK = 1 << 17


def _copy(block, a, b):
    a, b = a[block * _BLOCK : (block + 1) * _BLOCK], b[block * _BLOCK : (block + 1) * _BLOCK]
    for i in range(a.size):
        b[i] = a[i]


copy = parallel(_copy)


def matmul_flops(rounds: int = 7) -> float:
    """Floating-point operations a second of NumPy's matrix product, float32.

    Of the shapes that the MLP of preset ``wide`` has: (2048, 128) times (128, 8192).
    """
    N, C, F = 2048, 128, 8192
    x, W, y = np.ones((N, C), np.float32), np.ones((C, F), np.float32), np.ones((N, F), np.float32)
    times = alternate({"matmul": lambda: np.matmul(x, W, out=y)}, rounds, calls=3)
    return 2 * N * C * F / statistics.median(times["matmul"])


def copy_bytes(rounds: int = 7) -> float:
    """Bytes a second, read and written, of a copy of 200 MB by all threads."""
    a, b = np.ones((2, 50_000_000), np.float32)
    with own_threads():
        times = alternate({"copy": lambda: copy(n_blocks(a.size, _BLOCK), a, b)}, rounds)
    return 2 * a.nbytes / statistics.median(times["copy"])
