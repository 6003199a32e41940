"""What a setting costs: runs that differ in it side by side, loss against units in use and time."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np

from minirelu.errors import UserError
from minirelu.figures.panels import Data, figure_data, line, panel
from minirelu.figures.runs import check_comparable, differing, groups, mean_and_range
from minirelu.figures.usage_over_training import SHARE, SHARE_TO_ALL, repeated
from minirelu.runs.run import Run, measured, probes_of


def price(runs: Sequence[Run]) -> Data:
    """Loss, use, silence and seconds a step at the end of runs that differ in one setting.

    Raises
    ------
    UserError
        the runs differ in no setting but the seed, or in several.
    """
    vary = differing(runs)
    if len(vary) != 1:
        named = ", ".join(vary) or "none but the seed"
        raise UserError(f"price shows runs that differ in one setting; these differ in {named}")
    section, _, setting = vary[0].partition(".")
    together = groups(runs)
    values = [getattr(getattr(g.runs[0].settings, section), setting) for g in together]
    look = "points"  # of values without an order, as the runs come
    if all(isinstance(value, (int, float)) for value in values):
        look = "run 0"
        order = sorted(range(len(values)), key=values.__getitem__)
        together, values = [together[i] for i in order], [f"{values[i]:g}" for i in order]
    ticks = [[i, str(value)] for i, value in enumerate(values)]
    x = {"label": setting, "scale": "linear", "ticks": ticks}
    L = min(run.config.n_layers for run in runs)

    def of_all(value, layer: tuple[int, int] | None = None) -> Data:
        spread = [mean_and_range([value(run) for run in group.runs]) for group in together]
        mean, low, high = zip(*spread, strict=True)
        return line(range(len(together)), mean, layer, look, band=(low, high))

    def by_layer(value) -> list[Data]:
        return [of_all(lambda run, l=l: value(run, l), (l, L)) for l in range(L)]

    loss, seconds = {"label": "nats per token"}, {"label": "seconds", "low": 0}
    panels = [
        panel([of_all(lambda run: probes_of(run)[-1]["val_loss"])], x, loss, "validation loss"),
        panel(by_layer(_per_token), x, SHARE, "units on at a token"),
        panel(by_layer(silent_share), x, SHARE_TO_ALL, "units on at no token of the probe"),
        panel([of_all(_step_seconds)], x, seconds, "a step, median of the last quarter"),
    ]
    notes = [*check_comparable(runs, "val_loss"), *repeated(together)]
    return figure_data(f"What {setting} costs, at the end of the runs", panels, runs, notes, 2)


def _per_token(run: Run, l: int) -> float | None:
    return measured(probes_of(run)[-1], "per_token", run.config.n_layers)[l]


def silent_share(run: Run, l: int) -> float:
    """Share of a layer's units that were on at no token of the last probe."""
    return float(np.mean(run.counts(probes_of(run)[-1]["step"]).tokens_on[l] == 0))


def _step_seconds(run: Run) -> float:
    """As the run was trained: whatever else the machine did then counts too."""
    records = run.metrics("train")
    tokens = run.settings.train.batch_size * run.config.n_ctx
    last = records[-max(1, len(records) // 4) :]
    return statistics.median(tokens / record["tokens_per_second"] for record in last)
