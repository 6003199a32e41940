"""How kernels are compiled, the pieces that work is cut into, and who may use the threads."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
from numba import njit
from threadpoolctl import ThreadpoolController

from minirelu.errors import UserError

# Sums may be taken in another order (vector registers need that), products and sums contracted,
# and the sign of a zero ignored. What `fastmath=True` adds to these licenses the compiler to
# assume that no number is NaN or Inf, which would hide the very runs that need a warning.
SAFE = {"reassoc", "contract", "nsz"}

# Tokens that one thread takes at a time: of a layer with 128 columns, their inputs and gradients
# stay in a core's own cache.
BLOCK = 256
# Hidden units, or entries of the vocabulary, in one small matrix product.
TILE = 512


def serial(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that one thread runs, and that leaves the others free meanwhile."""
    return njit(cache=True, nogil=True, fastmath=SAFE, error_model="numpy")(kernel)


def part(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that becomes a part of the kernels that use it."""
    return njit(cache=True, forceinline=True, fastmath=SAFE, error_model="numpy")(kernel)


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


def most_threads() -> int:
    """Threads this process may use: its processors, or what ``NUMBA_NUM_THREADS`` says."""
    return int(numba.config.NUMBA_NUM_THREADS)


def n_threads() -> int:
    """Threads in use."""
    return _n_threads or most_threads()


def set_threads(n: int | None) -> int:
    """Use ``n`` threads from here on (None: all there are), and return how many that is.

    Raises
    ------
    ValueError
        fewer than 1, or more than there are.
    """
    global _n_threads
    most = most_threads()
    if n is None:
        n = most
    if not 1 <= n <= most:
        raise UserError(f"threads: {n} is not allowed; this machine has 1 to {most}")
    _n_threads = n
    _controller().limit(limits=n, user_api="blas")
    return n


@contextlib.contextmanager
def own_threads() -> Iterator[None]:
    """Keep every BLAS to one thread while kernels, which have their own, are running.

    Python threads that want this at the same time wait for each other.
    """
    with _one_at_a_time, _controller().limit(limits=1, user_api="blas"):
        yield


@functools.cache
def _controller() -> ThreadpoolController:
    """Find the loaded BLAS libraries, among them the one that compiled code calls (SciPy's)."""
    import scipy.linalg.cython_blas  # noqa: F401  loads it

    return ThreadpoolController()


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, most_threads() - 1), "minirelu")


def _after_fork() -> None:
    """In a forked process: the threads are gone, and whoever held the lock."""
    global _one_at_a_time
    _one_at_a_time = threading.RLock()
    _pool.cache_clear()


_n_threads: int | None = None
_one_at_a_time = threading.RLock()
if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_after_fork)
