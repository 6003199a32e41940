"""Runs side by side: settings, final measures, and the same figures laid over each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minirelu.errors import UserError
from minirelu.figures import KINDS
from minirelu.figures.runs import (
    NotComparable,
    check_comparable,
    facts,
    not_alike,
    unlike,
    unlike_runs,
)
from minirelu.figures.style import save
from minirelu.report.page import code_text
from minirelu.runs.run import Run, measured, probes_of
from minirelu.sparsity.measures import MEASURES, report_measures, what_on_means
from minirelu.sparsity.usage import first_and_last

OVERLAID = ("fig1", "fig5", "loss")


def compare(runs: Sequence[Run]) -> dict[str, Any]:
    """Compare runs with the first of them, at the last probe of each.

    Parameters
    ----------
    runs : sequence of Run
        at least two, with at least one probe each.

    Returns
    -------
    dict
        plain values: ``runs`` (facts), ``settings`` (for each run, how it differs from the first),
        ``val_loss`` and ``measures`` (see :func:`measure_rows`), ``left_out`` (what cannot be
        compared, and why), ``notes``.

    Raises
    ------
    UserError
        fewer than two runs, or one without probes.
    """
    if len(runs) < 2:
        raise UserError(f"compare takes two runs or more; {len(runs)} given")
    last = [probes_of(run)[-1] for run in runs]
    result: dict[str, Any] = {
        "runs": [facts(run) for run in runs],
        "settings": [run.settings.differences(runs[0].settings) for run in runs],
        "val_loss": None,
        "measures": {},
        "left_out": [],
        "notes": [],
    }
    steps = {probe["step"] for probe in last}
    if len(steps) > 1:
        result["notes"].append(
            f"Not alike: probed last at steps {', '.join(map(str, sorted(steps)))}."
        )
    codes = {code_text(run) for run in runs}
    if len(codes) > 1:
        result["notes"].append(f"Made by different code: {', '.join(sorted(codes))}.")
    left_out: dict[tuple[str, ...], list[str]] = {}  # why: which
    for name in ("val_loss", *(measure.name for measure in report_measures())):
        try:
            check_comparable(runs, name)
        except NotComparable as e:
            left_out.setdefault(tuple(e.why), []).append(name)
            continue
        if name == "val_loss":
            values = [probe[name] for probe in last]
            result["val_loss"] = {"values": values, "minus_first": _minus(values)}
        elif any(name in probe for probe in last):
            result["measures"][name] = measure_rows(
                [measured(p, name, run.config.n_layers) for p, run in zip(last, runs, strict=True)]
            )
    result["left_out"] = [
        f"{', '.join(names)} cannot be compared between {unlike_runs(why, runs)}"
        for why, names in left_out.items()
    ]
    reasons = {what for why in left_out for what in why}
    result["notes"] += not_alike(what for what in unlike(runs) if what not in reasons)
    result["notes"] += dict.fromkeys(filter(None, (what_on_means(run.config) for run in runs)))
    return result


def measure_rows(values: Sequence[Sequence[float | None]]) -> dict[str, dict[str, list]]:
    """Return a table of one measure: a row for each layer, and three on a run's ends.

    Parameters
    ----------
    values : sequence over runs of sequences over layers
        None where the measure does not exist; runs may differ in depth.

    Returns
    -------
    dict
        row name to ``values`` (one for each run) and ``minus_first`` (run less the first run).

    Examples
    --------
    >>> rows = measure_rows([[0.5, 0.25], [0.25, 0.5]])
    >>> rows["layer 1"]
    {'values': [0.25, 0.5], 'minus_first': [0.0, 0.25]}
    >>> rows["last / first"]["values"]
    [0.5, 2.0]
    """
    rows = {
        f"layer {l}": [layers[l] if l < len(layers) else None for layers in values]
        for l in range(max(map(len, values)))
    }
    ends = [first_and_last(np.array(layers, dtype=float)) for layers in values]
    rows["middle, mean"] = [_plain(e.middle) for e in ends]
    rows["last - first"] = [_plain(e.last - e.first) for e in ends]
    rows["last / first"] = [_plain(e.last_over_first) for e in ends]
    return {name: {"values": row, "minus_first": _minus(row)} for name, row in rows.items()}


def _plain(value: float) -> float | None:
    """NaN, which JSON lacks, as None."""
    return None if math.isnan(value) else value


def _minus(row: Sequence[float | None]) -> list[float | None]:
    """Each run less the first."""
    first = row[0]
    return [None if v is None or first is None else v - first for v in row]


def overlay(runs: Sequence[Run], folder: Path) -> tuple[dict[str, Path], dict[str, Any], list[str]]:
    """Draw the figures with all runs in each; return their files, their data, and those left out.

    Parameters
    ----------
    runs : sequence of Run
    folder : Path
        exists.
    """
    pictures, data = {}, {}
    left_out: dict[str, list[str]] = {}  # why: which
    for name in OVERLAID:
        try:
            data[name] = KINDS[name].data(runs, apart=True)
        except NotComparable as e:  # compare says why
            left_out.setdefault(f"{e.measure} cannot be compared", []).append(name)
            continue
        except UserError as e:
            left_out.setdefault(str(e), []).append(name)
            continue
        pictures[name] = save(KINDS[name].draw(data[name]), folder / name)
    sentences = [
        f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} left out: {why}"
        for why, names in left_out.items()
    ]
    return pictures, data, sentences


def table(result: dict[str, Any]) -> list[str]:
    """Lines of text: each measure by layer, a column for each run, and its difference.

    Shares are in %, their differences in percentage points; the ratio of the ends is a number.
    What a run has not measured is "-".
    """
    letters = _letters(result)
    head = f"{letters[0]:>9}" + "".join(f"{x:>9}{x + '-A':>9}" for x in letters[1:])
    lines = []
    for name, rows in result["measures"].items():
        measure = MEASURES[name]
        unit = "%" if measure.is_share else measure.unit
        lines += ["", f"{name}: {measure.what}, {unit}", f"{'':14}{head}"]
        for label, row in rows.items():
            in_percent = measure.is_share and label != "last / first"
            scale, digits = (100, 1) if in_percent else (1, 2)
            cells = [_cell(row["values"][0], scale, digits)]
            for value, less in zip(row["values"][1:], row["minus_first"][1:], strict=True):
                cells += [_cell(value, scale, digits), _cell(less, scale, digits, "+")]
            lines.append(f"{label:14}" + "".join(f"{cell:>9}" for cell in cells))
    return lines


def _cell(value: float | None, scale: int, digits: int, sign: str = "") -> str:
    return "-" if value is None else f"{scale * value:{sign}.{digits}f}"


def heading(result: dict[str, Any]) -> list[str]:
    """Lines of text: which run is which, and in which settings they differ from the first."""
    lines = []
    for letter, run, changed in zip(
        _letters(result), result["runs"], result["settings"], strict=True
    ):
        lines.append(f"{letter}  {run['name']}, step {run['step']}")
        lines += [f"   {change}" for change in changed]
    if result["val_loss"]:
        losses = zip(_letters(result), result["val_loss"]["values"], strict=True)
        lines.append(
            "loss " + "  ".join(f"{letter} {nats:.3f}" for letter, nats in losses) + " nats"
        )
    return lines


def _letters(result: dict[str, Any]) -> list[str]:
    """A, B, C ... for the runs."""
    return [chr(ord("A") + i) for i in range(len(result["runs"]))]
