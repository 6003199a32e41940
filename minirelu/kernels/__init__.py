"""The fast versions: Numba kernels and the training step made of them, held to the reference.

Every kernel is a plain Python function first, and gets its compiled name below it. Most compute
one piece of the work, and ``run(pieces, ...)`` has the threads call them for all pieces.

**To step through one**, set ``NUMBA_DISABLE_JIT=1`` in the environment: every kernel is then that
plain function, with breakpoints and ``print`` as in any other, and thousands of times slower. Take
a tiny model, and one thread (``NUMBA_NUM_THREADS=1``) so that pieces come one after the other.

**After a change**, of a kernel, a helper or a constant, all kernels are compiled anew:
``cache.py`` keeps compiled code under a digest of everything in this folder.

Two rules make the results the same bits for any number of threads:

* Pieces are of a fixed size, blocks of tokens or tiles of hidden units. A thread takes whole
  pieces, so no sum is ever split between threads in another way.
* Matrix products inside a piece run on one thread. They are small enough to stay in a core's own
  cache, and two of them side by side are as fast as one that uses both cores.
"""
