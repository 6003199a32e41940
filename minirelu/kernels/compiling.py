"""How kernels are compiled, and the pieces that work is cut into."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np

from minirelu.kernels.cache import cache_folder, numba_config
from minirelu.threads import most_threads, n_threads

# Sums may be taken in another order (vector registers need that), products and sums contracted,
# and the sign of a zero ignored. What `fastmath=True` adds to these lets the compiler
# assume that no number is NaN or Inf, which would hide the very runs that need a warning.
SAFE = {"reassoc", "contract", "nsz"}

# Tokens that one thread takes at a time: of a layer with 128 columns, their inputs and gradients
# stay in a core's own cache.
BLOCK = 256
# Hidden units, or entries of the vocabulary, in one small matrix product.
TILE = 512


# All kernels, as the plain Python functions that they are before they are compiled.
KERNELS: list[Callable[..., Any]] = []


def serial(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that one thread runs, and that leaves the others free meanwhile."""
    return _compile(kernel, nogil=True)


def part(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that becomes a part of the kernels that use it."""
    return _compile(kernel, forceinline=True)


def _compile(kernel: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    KERNELS.append(kernel)
    folder, users_own = cache_folder(), numba_config.CACHE_DIR
    options |= {"cache": folder is not None}
    numba_config.CACHE_DIR = str(folder or "")  # read by njit now, and never again
    try:
        return numba.njit(fastmath=SAFE, error_model="numpy", **options)(kernel)
    finally:
        numba_config.CACHE_DIR = users_own


def parallel(kernel: Callable[..., Any]) -> Callable[..., None]:
    """Make ``run(pieces, *args)`` of a kernel that computes one piece: ``kernel(piece, *args)``.

    All threads share in; each takes the next piece when it has finished one. With ``scratch``,
    an array (threads, size), each gets a row of it, as the kernel's last argument.

    (Numba's own ``prange`` would do, but for this: a parallel loop's body is optimised once more
    when it goes to the cache on disk. Its sums may then be taken in another order, and a first
    run would differ from all later ones in the last bit.)
    """
    compiled = serial(kernel)

    @functools.wraps(kernel)
    def run(pieces: int, *args: Any, scratch: np.ndarray | None = None) -> None:
        todo = iter(range(pieces))  # the interpreter gives each number to one thread only

        def work(thread: int) -> None:
            given = args if scratch is None else (*args, scratch[thread])
            for piece in todo:
                compiled(piece, *given)

        others = [_pool().submit(work, i) for i in range(1, min(n_threads(), pieces))]
        try:
            work(0)
        finally:
            for other in others:
                other.result()

    return run


def n_blocks(n: int, block: int = BLOCK) -> int:
    """Return how many pieces ``n`` is cut into, the last one perhaps smaller.

    >>> n_blocks(513)
    3
    """
    return -(-n // block)


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, most_threads() - 1), "minirelu")


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_pool.cache_clear)  # the threads stay behind
