"""What each hidden unit did in each sequence, from what the MLP kernels keep anyway.

Reference: ``minirelu.model.unit_activity``, from plain activations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from minirelu.kernels.compiling import BLOCK, TILE, n_blocks, parallel, part
from minirelu.kernels.sparse_mlp import GROUP
from minirelu.model.activation_functions import EXACT_ZERO, Off
from minirelu.model.unit_activity import LARGEST, PER_ONE, UnitActivity

if TYPE_CHECKING:
    from minirelu.kernels.mlp_route import Kept


def _fixed_point(
    value,
    largest,  # what larger ones count as
    per_one,  # what 1.0 becomes
):
    return np.int64(min(np.float64(abs(value)), largest) * per_one)


fixed_point = part(_fixed_point)


def _watch_all(
    tile,  # which tile of the units
    post,  # (blocks, F * BLOCK)
    T,  # tokens of a sequence
    low,  # on is what is below this ...
    high,  # ... or above this
    largest,
    per_one,
    on,  # (B, F)
    first,  # (B, F)
    total,  # (B, F)
):
    """Fill in what the units of a tile did, from all of ``post``."""
    N, F = on.shape[0] * T, on.shape[1]
    zero = post.dtype.type(0)
    for block in range(post.shape[0]):
        lo, hi = block * BLOCK, min(N, (block + 1) * BLOCK)
        n = hi - lo
        for j in range(tile * TILE, min(F, (tile + 1) * TILE)):
            t = lo
            while t < hi:  # a block may hold parts of several sequences
                b = t // T
                stop = min(hi, (b + 1) * T)
                values = post[block, j * n + t - lo : j * n + stop - lo]
                before = t - b * T
                count, earliest, added = 0, T, np.int64(0)
                for p in range(values.size):  # without a branch: half of them may be on
                    is_on = (values[p] > high) | (values[p] < low)
                    count += is_on
                    earliest = min(earliest, before + p if is_on else T)
                    added += fixed_point(values[p] if is_on else zero, largest, per_one)
                on[b, j] += count
                first[b, j] = min(first[b, j], earliest)
                total[b, j] += added
                t = stop


def _watch_listed(
    group,  # which group of units
    start,  # (blocks, F + 1)
    token,  # (blocks, F * BLOCK + 1)
    value,  # (blocks, F * BLOCK + 1)
    T,  # tokens of a sequence
    low,  # on is what is below this ...
    high,  # ... or above this
    largest,
    per_one,
    on,  # (B, F)
    first,  # (B, F)
    total,  # (B, F)
):
    """Fill in what the units of a group did, from the sparse list."""
    F = on.shape[1]
    for block in range(start.shape[0]):
        for j in range(group * GROUP, min(F, (group + 1) * GROUP)):
            for p in range(start[block, j], start[block, j + 1]):
                v = value[block, p]
                if v > high or v < low:  # a NaN is listed too, and a zero among the k largest
                    t = block * BLOCK + np.int64(token[block, p])
                    b = t // T
                    on[b, j] += 1
                    first[b, j] = min(first[b, j], t - b * T)
                    total[b, j] += fixed_point(v, largest, per_one)


watch_all = parallel(_watch_all)
watch_listed = parallel(_watch_listed)


def watch(kept: Kept, B: int, T: int, F: int, off: Off = EXACT_ZERO) -> UnitActivity:
    """Return what each of the layer's units did in each sequence; before the backward only."""
    activity = UnitActivity(
        np.zeros((B, F), np.int32), np.full((B, F), T, np.int32), np.zeros((B, F), np.int64)
    )
    low, high = (kept.values.dtype.type(bound) for bound in off)
    given = (T, low, high, LARGEST, PER_ONE, *activity)
    if kept.start is None:
        watch_all(n_blocks(F, TILE), kept.values, *given)
    else:
        watch_listed(n_blocks(F, GROUP), kept.start, kept.token, kept.values, *given)
    return activity
