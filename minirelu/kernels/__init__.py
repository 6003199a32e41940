"""The fast versions: Numba kernels and the training step made of them, held to the reference.

Every kernel is a plain Python function first, readable and runnable without a compiler, and gets
its compiled name below it; compiled code is cached beside the source.

Two rules make the results the same bits for any number of threads:

* Work is cut into pieces of a fixed size, blocks of tokens or tiles of hidden units. A thread
  takes whole pieces, and no sum is ever split between two of them in another way.
* Matrix products inside a piece run on one thread. They are small enough to stay in a core's own
  cache, and two of them side by side are as fast as one that uses both cores.

The threads of Numba's OpenMP layer spin when they are done and hold the cores that others want;
those of its own layer, ``workqueue``, sleep, and it is there on every platform. It must not be
entered from two Python threads at once: run things side by side in processes. Set
``NUMBA_THREADING_LAYER`` to choose otherwise.
"""

import os

import numba

if "NUMBA_THREADING_LAYER" not in os.environ:
    numba.config.THREADING_LAYER = "workqueue"
