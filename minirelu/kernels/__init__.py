"""The fast versions: Numba kernels and the training step made of them, held to the reference.

Every kernel is a plain Python function first, readable and runnable without a compiler, and gets
its compiled name below it; compiled code is cached beside the source. Most compute one piece of
the work, and ``run(pieces, ...)`` has the threads call them for all pieces.

Two rules make the results the same bits for any number of threads:

* Pieces are of a fixed size, blocks of tokens or tiles of hidden units. A thread takes whole
  pieces, and no sum is ever split between two of them in another way.
* Matrix products inside a piece run on one thread. They are small enough to stay in a core's own
  cache, and two of them side by side are as fast as one that uses both cores.
"""
