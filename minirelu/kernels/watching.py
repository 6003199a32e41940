"""What each hidden unit did in each sequence, from what the MLP kernels keep anyway.

Reference: ``minirelu.model.unit_activity``, from plain activations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from minirelu.kernels.compiling import BLOCK, TILE, n_blocks, parallel, part
from minirelu.kernels.sparse_mlp import GROUP
from minirelu.model.unit_activity import LARGEST, PER_ONE, UnitActivity

if TYPE_CHECKING:
    from minirelu.kernels.mlp_route import Kept

def _fixed_point(v):
    return np.int64(min(np.float64(v), LARGEST) * PER_ONE)


fixed_point = part(_fixed_point)


def _watch_all(tile, post, T, on, first, total):
    # -, (blocks, F * BLOCK), -, (B, F) three times
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
                    is_on = values[p] > zero
                    count += is_on
                    earliest = min(earliest, before + p if is_on else T)
                    added += fixed_point(values[p] if is_on else zero)
                on[b, j] += count
                first[b, j] = min(first[b, j], earliest)
                total[b, j] += added
                t = stop


def _watch_listed(group, start, token, value, T, on, first, total):
    # -, the list, -, (B, F) three times
    """Fill in what the units of a group did, from the list of the pairs that are on."""
    F = on.shape[1]
    for block in range(start.shape[0]):
        for j in range(group * GROUP, min(F, (group + 1) * GROUP)):
            for p in range(start[block, j], start[block, j + 1]):
                v = value[block, p]
                if v > 0:  # a NaN is listed too
                    t = block * BLOCK + token[block, p]
                    b = t // T
                    on[b, j] += 1
                    first[b, j] = min(first[b, j], t - b * T)
                    total[b, j] += fixed_point(v)


watch_all = parallel(_watch_all)
watch_listed = parallel(_watch_listed)


def watch(kept: Kept, B: int, T: int, F: int) -> UnitActivity:
    """Return what each of the layer's units did in each sequence; before the backward only."""
    activity = UnitActivity(
        np.zeros((B, F), np.int32), np.full((B, F), T, np.int32), np.zeros((B, F), np.int64)
    )
    if kept.start is None:
        watch_all(n_blocks(F, TILE), kept.values, T, *activity)
    else:
        watch_listed(n_blocks(F, GROUP), kept.start, kept.token, kept.values, T, *activity)
    return activity
