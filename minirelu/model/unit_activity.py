"""What each hidden unit did in each sequence: where all counting begins."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minirelu.model.activation_functions import EXACT_ZERO, Off, is_on

# Activations are added up as whole multiples of 2**-20, so that a sum is exact, and the same in
# any order; rounding loses less than 2**-20 of each, and any above 2**40 counts as 2**40.
PER_ONE = 2.0**20
LARGEST = 2.0**40


class UnitActivity(NamedTuple):
    """Of B sequences of T tokens, for each unit of a layer; (B, F) each.

    ``on`` : the number of positions at which it was on, int32.
    ``first`` : the first of them, int32; T where there is none.
    ``total`` : the sum of its activations there, without their signs, in units of 2**-20, int64.
    """

    on: np.ndarray
    first: np.ndarray
    total: np.ndarray


def unit_activity(post: np.ndarray, off: Off = EXACT_ZERO) -> UnitActivity:
    """Say what each unit did, from the activations ``hook_post`` of a layer.

    Parameters
    ----------
    post : ndarray, (B, T, F)
    off : (float, float)
        the activations that count as off.

    Examples
    --------
    >>> on, first, total = unit_activity(np.array([[[0.0, 1.0], [0.5, 1.0], [0.0, 0.0]]]))
    >>> on, first, total / 2**20
    (array([[1, 2]], dtype=int32), array([[1, 0]], dtype=int32), array([[0.5, 2. ]]))
    """
    on_mask = is_on(post, off)
    on = on_mask.sum(axis=1, dtype=np.int32)
    first = np.where(on > 0, on_mask.argmax(axis=1), post.shape[1]).astype(np.int32)
    sizes = np.abs(np.where(on_mask, post, 0)).astype(np.float64)
    fixed_point = (np.minimum(sizes, LARGEST) * PER_ONE).astype(np.int64)
    return UnitActivity(on, first, fixed_point.sum(axis=1))
