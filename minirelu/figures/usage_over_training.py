"""Figures 1, 2a, 2b and 5 of Wild & Anderson 2024, and the first steps: use of hidden units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minirelu.errors import UserError
from minirelu.figures.panels import Data, figure_data, line, panel
from minirelu.figures.runs import check_comparable, groups, mean_and_range
from minirelu.figures.style import MOST_RUNS
from minirelu.runs.run import Run, measured, probes_of
from minirelu.sparsity.measures import OF_POSITIONS, OF_UNITS

EARLY_STEPS = 128  # what figures 2a and 2b show
FIRST_STEPS = 64  # the close-up
SHARE = {"label": OF_UNITS, "percent": True, "low": 0}
SHARE_TO_ALL = {**SHARE, "high": 1.04}
MEDIAN = {**SHARE, "label": OF_POSITIONS}


def fig1(runs: Sequence[Run], apart: bool = False) -> Data:
    """Share of units used per batch, over training."""
    title = f"Hidden units used in a batch of {batch_tokens(runs)} tokens"
    return _figure(runs, title, [("per_batch", SHARE_TO_ALL)], apart=apart)


def fig2a(runs: Sequence[Run], apart: bool = False) -> Data:
    """Share of units on at a token, early in training."""
    title = f"Hidden units on at a token, first {EARLY_STEPS} steps"
    return _figure(runs, title, [("per_token", SHARE)], EARLY_STEPS, apart=apart)


def fig2b(runs: Sequence[Run], apart: bool = False) -> Data:
    """Median in-sequence frequency of used units, early in training."""
    title = f"How steadily the median used unit is on, first {EARLY_STEPS} steps"
    return _figure(runs, title, [("median_in_sequence_used", MEDIAN)], EARLY_STEPS, apart=apart)


def fig5(runs: Sequence[Run], apart: bool = False) -> Data:
    """Share of units on at a token, the whole run."""
    title = "Hidden units on at a token, whole run"
    return _figure(runs, title, [("per_token", SHARE)], scale="even steps", apart=apart)


def early(runs: Sequence[Run], apart: bool = False) -> Data:
    """Share of units used per sequence and per batch, in the first steps."""
    measures = [("per_sequence", SHARE_TO_ALL), ("per_batch", SHARE_TO_ALL)]
    title = f"Hidden units used, first {FIRST_STEPS} steps"
    data = _figure(runs, title, measures, FIRST_STEPS, apart=apart)
    data["panels"][0]["title"] = f"in a sequence of {runs[0].config.n_ctx} tokens"
    data["panels"][1]["title"] = f"in a batch of {batch_tokens(runs)} tokens"
    return data


def batch_tokens(runs: Sequence[Run]) -> int:
    """Tokens of the batches that the first run's probes are made of."""
    return probes_of(runs[0])[-1]["batch_tokens"]


def _figure(
    runs: Sequence[Run],
    title: str,
    measures: list[tuple[str, dict[str, Any]]],
    until: int | None = None,
    scale: str = "steps",
    apart: bool = False,
) -> Data:
    """One panel for each measure, over the steps of training."""
    together = groups(runs, apart)
    for measure, _ in measures:
        notes = check_comparable(runs, measure)
    x = step_x(runs, scale)
    panels = [panel(layer_lines(together, measure, x, until), x, y) for measure, y in measures]
    return figure_data(title, panels, runs, notes + repeated(together))


def repeated(together: Sequence[tuple[str, list[Run]]]) -> list[str]:
    """Say what lines and bands are where several runs are drawn as one."""
    sizes = sorted({len(runs) for _, runs in together})
    if sizes == [1]:
        return []
    return [f"Lines: mean of {' or '.join(map(str, sizes))} runs; shaded: from lowest to highest."]


def step_x(runs: Sequence[Run], scale: str = "steps") -> Data:
    """Describe the axis of steps; of tokens, where runs differ in the tokens of a step."""
    each = {run.settings.train.batch_size * run.config.n_ctx for run in runs}
    if len(each) == 1:
        return {"label": "training step", "scale": scale, "tokens_per_step": each.pop()}
    return {"label": "training tokens", "scale": scale, "first": min(each), "in_tokens": True}


def layer_lines(
    together: Sequence[tuple[str, list[Run]]], measure: str, x: Data, until: int | None = None
) -> list[Data]:
    """One line for each layer and group of runs: mean and range over its runs."""
    several, lines = len(together) > 1, []
    for number, (name, runs) in enumerate(together):
        look, n_layers = run_look(number), runs[0].config.n_layers
        steps, records = common_probes(runs, until)
        at = [at_step(rows[0], x) for rows in records]
        for l in range(n_layers):
            values = [
                mean_and_range([measured(row, measure, n_layers)[l] for row in rows])
                for rows in records
            ]
            mean, low, high = zip(*values, strict=True)
            band = (low, high) if len(runs) > 1 else None
            lines.append(line(at, mean, (l, n_layers), look, name if several else "", band))
    return lines


def common_probes(runs: Sequence[Run], until: int | None = None) -> tuple[list[int], list]:
    """Return the steps that all these runs probed, and for each step the records of the runs."""
    by_step = [{p["step"]: p for p in probes_of(run)} for run in runs]
    steps = sorted(set.intersection(*(set(records) for records in by_step)))
    steps = [step for step in steps if until is None or step <= until]
    if not steps:
        raise UserError("these runs have no step in common at which they were probed")
    return steps, [[records[step] for records in by_step] for step in steps]


def at_step(record: dict[str, Any], x: Data) -> int:
    """Where a record lies on an axis of :func:`step_x`."""
    return record["tokens" if x.get("in_tokens") else "step"]


def run_look(number: int) -> str:
    """Look of the lines of a run, or an error when there are too many to tell apart."""
    if number >= MOST_RUNS:
        raise UserError(
            f"a figure tells {MOST_RUNS} runs apart at most (seeds of the same settings count as "
            "one); give fewer"
        )
    return f"run {number}"
