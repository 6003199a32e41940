"""The table of measures: every number that is measured layer by layer, and what to know about it.

To add one, write a function from :class:`UnitCounts` to an array (L,), and give it a row in
``MEASURES``. Everything that writes, reads, prints, draws or compares measures takes them from
there. A run made before the row was added lacks the measure, and is read as before.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from minirelu.config import ModelConfig
from minirelu.sparsity.counts import UnitCounts
from minirelu.sparsity.dormancy import dormant_share
from minirelu.sparsity.rarefaction import chao1
from minirelu.sparsity.usage import in_sequence_percentile, level_ratios, usage

# Units of measure. What begins with "share" lies between 0 and 1, and is shown in %.
OF_UNITS = "share of the layer's units"
OF_POSITIONS = "share of a sequence's positions"
RATIO = "ratio"
UNITS = "units"


class Measure(NamedTuple):
    """One number for each layer.

    Parameters
    ----------
    name : str
        its key in records, JSON and CSV.
    what : str
        the same in words, for titles and headings.
    unit : str
        see above.
    of : callable
        UnitCounts -> ndarray, (L,); NaN where the layer used no unit.
    must_share : tuple of str
        what two runs must have in common for it to mean the same in both: "n_ctx", "batch"
        (tokens of the batches that a probe is made of), "tokens" (of a probe), "text".
    in_probe : bool
        whether each probe's record in ``metrics.jsonl`` has it (and so the table of a sweep).
    in_report : bool
        whether report, ``compare`` and, if it is a share, heat map show it; it is then in_probe.
    heading : str
        of its column in the tables of the terminal; without one, ``minirelu sparsity`` writes it
        to files only.
    """

    name: str
    what: str
    unit: str
    of: Callable[[UnitCounts], np.ndarray]
    must_share: tuple[str, ...] = ()
    in_probe: bool = False
    in_report: bool = False
    heading: str = ""

    @property
    def is_share(self) -> bool:
        """Whether it lies between 0 and 1."""
        return self.unit.startswith("share")

    def text(self, value: float | None, digits: int = 1) -> str:
        """Return a value as tables show it; None is what NaN is in JSON.

        >>> MEASURES["per_token"].text(0.5), MEASURES["silent_units"].text(1024)
        ('50.0 %', '1,024')
        """
        if value is None:
            return "none used"
        if self.is_share:
            return f"{100 * value:.{digits}f} %"
        return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def _percentile(p: int, over: str) -> Measure:
    """Return one of the percentiles that only files have."""
    return Measure(
        f"p{p}_in_sequence_{over}",
        f"positions at which the unit at percentile {p} ({over}) is on",
        OF_POSITIONS,
        partial(in_sequence_percentile, p=p, over=over),
        must_share=("n_ctx",),
    )


# In the order in which they are shown.
MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure(
            "per_token",
            "units on at a token",
            OF_UNITS,
            lambda counts: usage(counts).per_token,
            in_probe=True,
            in_report=True,
            heading="per token",
        ),
        Measure(
            "per_sequence",
            "units used in a sequence",
            OF_UNITS,
            lambda counts: usage(counts).per_sequence,
            must_share=("n_ctx",),
            in_probe=True,
            in_report=True,
            heading="per sequence",
        ),
        Measure(
            "per_batch",
            "units used in a batch",
            OF_UNITS,
            lambda counts: usage(counts).per_batch,
            must_share=("batch",),
            in_probe=True,
            in_report=True,
            heading="per batch",
        ),
        Measure(
            "token_in_sequence",
            "per_token over per_sequence",
            RATIO,
            lambda counts: level_ratios(counts).token_in_sequence,
            must_share=("n_ctx",),
        ),
        Measure(
            "sequence_in_batch",
            "per_sequence over per_batch",
            RATIO,
            lambda counts: level_ratios(counts).sequence_in_batch,
            must_share=("n_ctx", "batch"),
        ),
        Measure(
            "median_in_sequence_used",
            "positions at which the median used unit is on",
            OF_POSITIONS,
            partial(in_sequence_percentile, p=50, over="used"),
            must_share=("n_ctx",),
            in_probe=True,
            in_report=True,
            heading="median used",
        ),
        Measure(
            "median_in_sequence_all",
            "positions at which the median unit is on, of all",
            OF_POSITIONS,
            partial(in_sequence_percentile, p=50, over="all"),
            must_share=("n_ctx",),
            in_probe=True,
            heading="median all",
        ),
        *(_percentile(p, over) for over in ("used", "all") for p in (5, 25, 75, 95)),
        Measure(
            "dormant_share",
            "units with at most 0.025 of the layer's mean activation",
            OF_UNITS,
            dormant_share,
            heading="dormant",
        ),
        Measure(
            "silent_units",
            "units never on",
            UNITS,
            lambda counts: np.array([np.count_nonzero(on == 0) for on in counts.tokens_on]),
            must_share=("tokens",),
            heading="silent units",
        ),
        Measure(
            "chao1_units",
            "units that would be seen in the end (Chao1)",
            UNITS,
            lambda counts: chao1(counts).estimate,
            must_share=("n_ctx", "tokens"),
        ),
        Measure(
            "units",
            "units of the layer",
            UNITS,
            lambda counts: np.array(counts.config.mlp_widths),
        ),
    )
}


def probe_measures() -> list[Measure]:
    """Measures that the record of each probe has."""
    return [measure for measure in MEASURES.values() if measure.in_probe]


def report_measures() -> list[Measure]:
    """Measures that report and ``compare`` show."""
    return [measure for measure in MEASURES.values() if measure.in_probe and measure.in_report]


def must_share(name: str) -> tuple[str, ...]:
    """What two runs must have in common to be compared in a measure, or in ``val_loss``.

    The loss is a number of the text, not of units, and so has no row in the table.
    """
    return ("text",) if name == "val_loss" else MEASURES[name].must_share


def what_on_means(config: ModelConfig) -> str:
    """Return a sentence for tables that count units; empty where on is exactly non-zero.

    >>> import minirelu as mr
    >>> what_on_means(mr.ModelConfig(1, 1, 2, 4, n_ctx=2, d_vocab=5, act_fn="gelu"))
    'On: activation above 0 (gelu has no exact zeros).'
    """
    activation = config.activation
    if activation.has_zeros:
        return ""
    return f"On: activation {activation.on_means} ({activation.name} has no exact zeros)."


def summary(
    counts: UnitCounts, measures: list[Measure] | None = None
) -> dict[str, list[float | None]]:
    """Measure counts, by name; what does not exist is None.

    Parameters
    ----------
    counts : UnitCounts
    measures : list of Measure, optional
        without it, all.

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
    >>> values = summary(counts)
    >>> values["per_token"], values["silent_units"], values["median_in_sequence_used"]
    ([0.375], [2], [0.75])
    """
    chosen = list(MEASURES.values()) if measures is None else measures
    return {
        measure.name: [None if math.isnan(x) else x for x in measure.of(counts).tolist()]
        for measure in chosen
    }
