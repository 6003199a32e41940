"""Figures 3 and 4 of Wild & Anderson 2024: use of hidden units by width, and by depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from minirelu.errors import UserError
from minirelu.figures.panels import Data, figure_data, line, panel
from minirelu.figures.runs import (
    Group,
    check_comparable,
    differing,
    groups,
    mean_and_range,
    name_of,
)
from minirelu.figures.usage_over_training import (
    SHARE,
    SHARE_TO_ALL,
    batch_tokens,
    repeated,
    run_look,
)
from minirelu.runs.run import Run, measured


class Sweep(NamedTuple):
    """Finished runs that differ in one setting (and the seed), grouped by it, lowest first."""

    together: list[Group]
    runs: list[Run]
    notes: list[str]


def fig3(runs: Sequence[Run]) -> Data:
    """Share of units used per batch and per token, against the width of the MLP."""
    sweep = _sweep(runs, "d_mlp", "fig3")
    widths = [group.runs[0].config.mlp_widths[0] for group in sweep.together]
    L = sweep.runs[0].config.n_layers
    x: Data = {"label": "hidden units of a layer (d_mlp)", "scale": "log"}
    x["ticks"] = [[width, str(width)] for width in widths]
    batch = batch_tokens(sweep.runs)
    panels = []
    for measure, y, title in (
        ("per_batch", SHARE_TO_ALL, f"used in a batch of {batch} tokens"),
        ("per_token", SHARE, "on at a token"),
    ):
        lines = []
        for l in range(L):
            values = [mean_and_range(_last(group, measure, l)) for group in sweep.together]
            mean, low, high = zip(*values, strict=True)
            lines.append(line(widths, mean, (l, L), "run 0", band=(low, high)))
        panels.append(panel(lines, x, y, title))
    step = sweep.runs[0].settings.train.steps
    title = f"Hidden units in use by width, at step {step}"
    return figure_data(title, panels, sweep.runs, sweep.notes)


def fig4(runs: Sequence[Run]) -> Data:
    """Share of units used per batch, from first layer to last, for several depths."""
    sweep = _sweep(runs, "n_layers", "fig4")
    lines = []
    for number, group in enumerate(sweep.together):
        L = group.runs[0].config.n_layers
        values = [mean_and_range(_last(group, "per_batch", l)) for l in range(L)]
        mean, low, high = zip(*values, strict=True)
        at = [l / max(1, L - 1) for l in range(L)]
        lines.append(line(at, mean, None, run_look(number), f"{L} layers", (low, high)))
    x: Data = {"label": "place in the stack of layers", "scale": "linear"}
    x["ticks"] = [[0, "first"], [0.25, "¼"], [0.5, "½"], [0.75, "¾"], [1, "last"]]
    step = sweep.runs[0].settings.train.steps
    batch = batch_tokens(sweep.runs)
    title = f"Hidden units used in a batch of {batch} tokens, by depth, at step {step}"
    # not from 0: the differences are small beside the shares
    panels = [panel(lines, x, {"label": SHARE["label"], "percent": True})]
    return figure_data(title, panels, sweep.runs, sweep.notes)


def _last(group: Group, measure: str, l: int) -> list[float | None]:
    """What the runs of a group measured last, in one layer."""
    return [measured(run.probes()[-1], measure, run.config.n_layers)[l] for run in group.runs]


def _sweep(runs: Sequence[Run], field: str, figure: str) -> Sweep:
    """Check that runs make a sweep over one setting of the model, and put them in order."""
    done = [run for run in runs if is_finished(run)]
    values = {getattr(run.config, field) for run in done}
    if len(values) < 2:
        in_common = f", all with {field} {values.pop()}" if values else ""
        raise UserError(
            f"{figure} shows finished runs with two or more values of {field}; of the "
            f"{len(runs)} given, {len(done)} are finished{in_common}"
        )
    if not all(isinstance(run.config.d_mlp, int) for run in done):
        raise UserError(f"{figure} needs runs with the same width in all layers")
    others = [name for name in differing(done) if name != f"model.{field}"]
    if others:
        raise UserError(
            f"{figure} shows runs that differ in {field} and the seed only; these differ in "
            f"{', '.join(others)} too"
        )
    together = sorted(groups(done), key=lambda group: getattr(group.runs[0].config, field))
    notes = check_comparable(done, "per_batch") + repeated(together)
    left_out = [name_of(run) for run in runs if not is_finished(run)]
    if left_out:
        notes.append(f"Left out, not finished: {', '.join(left_out)}.")
    return Sweep(together, [run for group in together for run in group.runs], notes)


def is_finished(run: Run) -> bool:
    """Whether a run was probed at its last step."""
    probes = run.probes()
    return bool(probes) and probes[-1]["step"] == run.settings.train.steps
