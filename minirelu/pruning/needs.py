"""How few hidden units are enough: widths at which the loss stays within a limit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minirelu.compute import Workspace
from minirelu.model.parameters import Parameters
from minirelu.pruning.curves import quality
from minirelu.pruning.rankings import Scores, keep
from minirelu.pruning.smaller import smaller

# In exact arithmetic silent units change nothing; this is what sums of float32 in another order
# may, as a share of the loss.
ROUNDING = 1e-6
_FINEST = 64  # what can go is found to this part of the units
LOOKS = 6  # models that are measured to find it: 2**6 = 64


def units_needed(
    params: Parameters,
    of_layers: Scores,
    sequences: np.ndarray,
    scope: str | int,
    base: float,
    limit: float,
    compute: str = "auto",
    on_look: Callable[[], object] = lambda: None,
) -> list[int]:
    """Fewest units with which the loss stays within a limit, those of the lowest scores removed.

    Found by halving the range of shares, which takes the loss to rise with the share removed.

    Parameters
    ----------
    params : Parameters
    of_layers : list of L arrays, (F,)
    sequences : int ndarray, (S, T + 1)
    scope : "each", "global" or int
        see :func:`minirelu.pruning.rankings.keep`.
    base : float
        loss of the whole model on these sequences.
    limit : float
        rise that is allowed, as a share of ``base``.
    compute : {"auto", "dense", "sparse", "reference"}
    on_look : callable
        called after each model that was measured.

    Returns
    -------
    list of L ints
        widths; with a layer as ``scope``, the others have all of theirs.
    """
    workspace = Workspace()
    within, beyond = 0, _FINEST + 1  # of _FINEST parts: removable, and not
    while beyond - within > 1:
        middle = (within + beyond) // 2
        left = smaller(params, keep(of_layers, middle / _FINEST, scope))
        loss = quality(left, sequences, left.config, compute, workspace).loss
        on_look()
        if loss <= base * (1 + max(limit, ROUNDING)):
            within = middle
        else:
            beyond = middle
    return [int(k.sum()) for k in keep(of_layers, within / _FINEST, scope)]
