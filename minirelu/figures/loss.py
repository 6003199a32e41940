"""The loss, against the baselines of the corpus, and beside sparsity."""

from __future__ import annotations

from collections.abc import Sequence

from minirelu.figures.panels import Data, figure_data, line, panel
from minirelu.figures.runs import Group, check_comparable, groups, mean_and_range
from minirelu.figures.usage_over_training import (
    SHARE,
    at_step,
    common_probes,
    layer_lines,
    repeated,
    run_look,
    step_x,
)
from minirelu.runs.run import Run, probes_of


def loss(runs: Sequence[Run], apart: bool = False) -> Data:
    """Training and validation loss over training, with the unigram and bigram baselines."""
    together = groups(runs, apart)
    notes = check_comparable(runs, "val_loss") + repeated(together)
    x = step_x(runs)
    lines = _loss_lines(together, x)
    return figure_data("Loss", [_panel(lines, x)], runs, notes, of_units=False)


def loss_and_use(runs: Sequence[Run]) -> Data:
    """Loss above, units on at a token below, over the same steps."""
    (run,) = runs
    x = step_x(runs)
    together = [Group("", [run])]
    panels = [
        _panel(_loss_lines(together, x), x),
        panel(layer_lines(together, "per_token", x), x, SHARE),
    ]
    return figure_data("Loss, and hidden units on at a token", panels, runs)


def _panel(lines: list[Data], x: Data) -> Data:
    return panel(lines, x, {"label": "nats per token"})


def _loss_lines(together: Sequence[Group], x: Data) -> list[Data]:
    lines = []
    if len(together) == 1 and len(together[0].runs) == 1:
        train = together[0].runs[0].metrics("train")
        at = [at_step(r, x) for r in train]
        lines.append(line(at, [r["loss"] for r in train], None, "behind", "training batches"))
    for number, (name, runs) in enumerate(together):
        _, records = common_probes(runs)
        at = [at_step(rows[0], x) for rows in records]
        values = [mean_and_range([row["val_loss"] for row in rows]) for rows in records]
        mean, low, high = zip(*values, strict=True)
        series = name if len(together) > 1 else "probe (held out)"
        band = (low, high) if len(runs) > 1 else None
        lines.append(line(at, mean, None, run_look(number), series, band))
    first = together[0].runs[0]
    ends = [0, at_step(probes_of(first)[-1], x)]
    for i, (name, nats) in enumerate(first.corpus["baselines"].items()):
        lines.append(line(ends, [nats, nats], None, f"mark {i}", f"{name} {nats:.2f}"))
    return lines
