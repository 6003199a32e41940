"""Numba versions of what costs the most time, each held to its NumPy reference by tests.

Every kernel is a plain Python function first, readable and runnable without a compiler, and gets
its compiled name below. Compiled code is cached beside the source.

The threads of Numba's OpenMP layer spin when they are done and hold the cores that the next
matrix product wants; those of its own layer, ``workqueue``, sleep, and it is there on every
platform. It must not be entered from two Python threads at once: run things side by side in
processes. Set ``NUMBA_THREADING_LAYER`` to choose otherwise.
"""

import os

import numba

if "NUMBA_THREADING_LAYER" not in os.environ:
    numba.config.THREADING_LAYER = "workqueue"
