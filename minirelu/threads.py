"""How many threads compute: this process's processors, or as many as ``--threads`` says."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Iterator

from threadpoolctl import ThreadpoolController

from minirelu.errors import UserError


@functools.cache
def most_threads() -> int:
    """Threads this process may use: its processors, or what ``NUMBA_NUM_THREADS`` says."""
    wanted = os.environ.get("NUMBA_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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


def _after_fork() -> None:
    """In a forked process: the thread that held the lock is gone."""
    global _one_at_a_time
    _one_at_a_time = threading.RLock()


_n_threads: int | None = None
_one_at_a_time = threading.RLock()
if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_after_fork)
