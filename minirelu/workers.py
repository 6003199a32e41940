"""Who does work that comes in parts: processes of this machine, or a Dask cluster.

Both are a ``concurrent.futures.Executor``, so that the caller need not know which.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from typing import Any, TypeVar

from minirelu.errors import UserError, one_line

Result = TypeVar("Result")

_LIVES = 3  # workers that may die at the same piece of work before it is given up
_REACH_SECONDS = 5  # to find a scheduler


def process_pool(workers: int, threads: int | None = None) -> ProcessPoolExecutor:
    """Make a pool of fresh processes with this many threads each (None: an equal share).

    Raises
    ------
    UserError
        for fewer than one.

    Examples
    --------
    >>> with process_pool(1) as pool:
    ...     pool.submit(divmod, 7, 2).result()
    (3, 1)
    """
    import multiprocessing

    threads = threads_each(workers) if threads is None else threads
    spawn = multiprocessing.get_context("spawn")  # a fork would take over half of our threads
    return ProcessPoolExecutor(workers, spawn, initializer=_start_worker, initargs=(threads,))


def threads_each(workers: int) -> int:
    """Threads for each of this many workers: together those in use here, at least one each."""
    if workers < 1:
        raise UserError(f"workers: {workers} is not allowed; it must be 1 or more")
    from minirelu.threads import n_threads

    return max(1, n_threads() // workers)


def _start_worker(threads: int) -> None:
    """Leave Ctrl-C to the process that gives out the work, and use this many threads."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from minirelu.threads import set_threads

    set_threads(threads)


def in_own_process(
    threads: int, given_up: Callable[[], bool], work: Callable[..., Result], *args: Any
) -> Result | None:
    """Call ``work(*args)`` in a process of its own; if that dies, in another one.

    Parameters
    ----------
    threads : int
        of that process.
    given_up : callable
        asked when the process has died: if it says True, no other one is started.
    work : callable
        importable by its name, and able to go on where a dead process left off.

    Returns
    -------
    what ``work`` returns; None if it was given up.

    Raises
    ------
    UserError
        the process died three times.
    """
    for _ in range(_LIVES):
        with process_pool(1, threads) as pool:
            try:
                return pool.submit(work, *args).result()
            except BrokenExecutor:
                if given_up():
                    return None
    raise UserError(
        f"its process died {_LIVES} times, perhaps for lack of memory; try with fewer workers"
    )


@contextlib.contextmanager
def cluster(address: str) -> Iterator[Executor]:
    """Use the workers of a running Dask cluster.

    A worker that is lost costs the work it was doing: the scheduler gives that to another one.

    Parameters
    ----------
    address : str
        of the scheduler, as in ``tcp://10.0.0.1:8786``.

    Raises
    ------
    UserError
        ``distributed`` is not installed, no scheduler answers, or it has no workers.
    """
    try:
        import distributed
    except ImportError:
        raise UserError(
            "--scheduler needs the package distributed; install it:  "
            "pip install 'minirelu[cluster]'"
        ) from None
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # we say ourselves what went wrong
    try:
        parts = urllib.parse.urlsplit(address)
        if parts.scheme not in ("tcp", "tls") or not parts.hostname or not parts.port:
            raise ValueError("write it as tcp://HOST:PORT")
        # Knock first: without a scheduler, a Client says so late, and more than once.
        socket.create_connection((parts.hostname, parts.port), _REACH_SECONDS).close()
        client = _within(_REACH_SECONDS, lambda: distributed.Client(address, set_as_default=False))
    except (OSError, ValueError, TypeError) as e:
        raise UserError(
            f"cannot reach a Dask scheduler at {one_line(repr(address))} ({one_line(e)}); start "
            "one with:  dask scheduler"
        ) from None
    with client:
        if not client.scheduler_info(n_workers=-1)["workers"]:
            raise UserError(
                f"the scheduler {one_line(address)} has no workers; start some, one for each run "
                f"at a time:  dask worker --nthreads 1 {one_line(address)}"
            )
        yield client.get_executor(pure=False)


def _within(seconds: float, make: Callable[[], Result]) -> Result:
    """Call a function that may never return, as a Client does where no scheduler answers."""
    made: Future[Result] = Future()

    def work() -> None:
        try:
            made.set_result(make())
        except BaseException as e:
            made.set_exception(e)

    threading.Thread(target=work, daemon=True).start()
    if not wait([made], seconds).done:
        raise OSError(f"no answer in {seconds} seconds")
    return made.result()


@contextlib.contextmanager
def plain_failures() -> Iterator[None]:
    """Turn what goes wrong with workers, not with the work, into one line."""
    try:
        yield
    except BrokenExecutor:
        raise UserError(
            "a worker process died, perhaps for lack of memory; try with fewer workers"
        ) from None
    except CancelledError:
        raise UserError("the scheduler was lost; the same command goes on") from None
    except ImportError as e:
        raise UserError(f"a worker lacks what it needs: {one_line(e)}; install it there") from None
    except Exception as e:
        distributed = sys.modules.get("distributed")
        if distributed and isinstance(e, distributed.scheduler.KilledWorker):
            raise UserError("the workers that were doing this died, one after the other") from None
        raise
