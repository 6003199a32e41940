"""How kernels are compiled, the pieces that work is cut into, and who may use the threads."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numba
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


def parallel(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a kernel whose ``prange`` loops use all threads."""
    return njit(parallel=True, cache=True, fastmath=SAFE, error_model="numpy")(kernel)


def serial(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that one thread runs, often as a part of a parallel one."""
    return njit(cache=True, fastmath=SAFE, error_model="numpy")(kernel)


def n_blocks(n: int, block: int = BLOCK) -> int:
    """Return how many pieces ``n`` is cut into, the last one perhaps smaller.

    >>> n_blocks(513)
    3
    """
    return -(-n // block)


@functools.cache
def _controller() -> ThreadpoolController:
    """Find the loaded BLAS libraries, among them the one that compiled code calls (SciPy's)."""
    import scipy.linalg.cython_blas  # noqa: F401  loads it

    return ThreadpoolController()


@contextlib.contextmanager
def own_threads() -> Iterator[None]:
    """Keep every BLAS to one thread while kernels, which have their own, are running."""
    with _controller().limit(limits=1, user_api="blas"):
        yield


def set_threads(n: int | None) -> int:
    """Use ``n`` threads from here on (None: all there are), and return how many that is.

    Raises
    ------
    ValueError
        fewer than 1, or more than there are.
    """
    most = int(numba.config.NUMBA_NUM_THREADS)
    if n is None:
        n = most
    if not 1 <= n <= most:
        raise UserError(f"threads: {n} is not allowed; this machine has 1 to {most}")
    numba.set_num_threads(n)
    _controller().limit(limits=n, user_api="blas")
    return n
