"""Every measure of one set of counts, layer by layer: what is printed, written and compared."""

from __future__ import annotations

import math

import numpy as np

from minirelu.sparsity.counts import UnitCounts
from minirelu.sparsity.dormancy import dormant_share
from minirelu.sparsity.rarefaction import chao1
from minirelu.sparsity.usage import in_sequence_percentile, level_ratios, usage

PERCENTILES = (5, 25, 50, 75, 95)


def summary(counts: UnitCounts) -> dict[str, list[float | None]]:
    """Return all measures that are one number a layer, by name; what does not exist is None.

    Parameters
    ----------
    counts : UnitCounts

    Returns
    -------
    dict of list, L numbers each

    Raises
    ------
    ValueError
        nothing was counted yet.

    Examples
    --------
    >>> import minirelu as mr
    >>> config = mr.ModelConfig(n_layers=1, n_heads=1, d_model=2, d_mlp=4, n_ctx=2, d_vocab=5)
    >>> counts = mr.UnitCounts(config)
    >>> counts.update({"blocks.0.mlp.hook_post": np.array([[[1.0, 0, 0, 0], [1, 1, 0, 0]]])})
    >>> found = summary(counts)
    >>> found["per_token"], found["silent_units"], found["p50_in_sequence_used"]
    ([0.375], [2], [0.75])
    """
    measures: dict[str, np.ndarray] = {
        **usage(counts)._asdict(),
        **level_ratios(counts)._asdict(),
        **{
            f"p{p}_in_sequence_{over}": in_sequence_percentile(counts, p, over)
            for over in ("used", "all")
            for p in PERCENTILES
        },
        "silent_units": np.array([np.count_nonzero(on == 0) for on in counts.tokens_on]),
        "chao1_units": chao1(counts).estimate,
        "dormant_share": dormant_share(counts),
        "units": np.array(counts.config.mlp_widths),
    }
    return {
        name: [None if math.isnan(x) else x for x in values.tolist()]
        for name, values in measures.items()
    }
