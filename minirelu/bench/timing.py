"""Taking turns with a stop-watch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


def alternate(
    contestants: Mapping[str, Callable[[], object]], rounds: int, calls: int = 1
) -> dict[str, list[float]]:
    """Time the contestants in turn: A B C, A B C, ...

    Parameters
    ----------
    contestants : mapping of callable
    rounds : int
    calls : int
        how often each is called in its turn; a turn's time is the mean of them.

    Returns
    -------
    dict of list of float
        seconds of a call, one number a round. A first round, in which compilers work and memory
        is taken, is not among them.

    Examples
    --------
    >>> times = alternate({"a": lambda: None, "b": lambda: None}, rounds=3)
    >>> {name: len(seconds) for name, seconds in times.items()}
    {'a': 3, 'b': 3}
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for i in range(rounds + 1):
        for name, call in contestants.items():
            call()  # the one before has filled the caches with its own data
            start = time.perf_counter()
            for _ in range(calls):
                call()
            if i > 0:
                times[name].append((time.perf_counter() - start) / calls)
    return times
