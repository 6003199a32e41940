"""Tables of what was found, as rows of text with a heading: for the terminal and for a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from minirelu.intervals import Estimate, over_seeds
from minirelu.pruning.survey import removable_over_seeds

Content = dict[str, Any]
Rows = list[list[str]]
_SCOPES = {"each": "same share of each", "global": "all together"}


def with_interval(estimate: Estimate, factor: float = 1.0, digits: int = 3) -> str:
    """Write a mean, and half the width of its 95 % interval over seeds, if there are several.

    >>> with_interval(Estimate(0.521, 0.509, 0.533), 100), with_interval(over_seeds([2.0]))
    ('52.1 ± 1.2', '2')
    """
    mean, low, high = (factor * v for v in estimate)
    text = f"{mean:.{digits}g}"
    return f"{text} ± {(high - low) / 2:.2g}" if math.isfinite(low) else text


def size(value: float) -> str:
    """A number with three digits, a large one whole.

    >>> size(0.05123), size(12.44), size(16461824)
    ('0.0512', '12.4', '16,461,824')
    """
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def of_survey(content: Content, limit: float) -> Rows:
    """Largest share removable within a limit, in percent, by criterion and scope, over seeds."""
    surveys = content["surveys"]
    curves = surveys[0]["curves"]
    scopes = list(dict.fromkeys(c["scope"] for c in curves))
    rows = [["by", *(_SCOPES.get(s, f"layer {s}") for s in scopes)]]
    for by in dict.fromkeys(c["by"] for c in curves):
        found = [removable_over_seeds(surveys, by, s, limit) for s in scopes]
        rows.append([by, *(with_interval(e, 100) for e in found)])
    silent = [
        over_seeds([s["silent"][l] for s in surveys]) for l in range(len(surveys[0]["silent"]))
    ]
    if all(isinstance(s, int) or s in _SCOPES for s in scopes):
        cells = {s: with_interval(silent[s], 100, 2) for s in scopes if isinstance(s, int)}
        rows.append(["(silent units)", *(cells.get(s, "") for s in scopes)])
    return rows


def of_trial(content: Content) -> Rows:
    """A row for each arm: size, steps, loss, accuracy, and the loss against the base's."""
    base = content["arms"][0]["against"]["base"]
    rows = [["arm", "what it is", "parameters", "steps", "loss", "accuracy, %", f"loss - {base}"]]
    for row in content["arms"]:
        rows.append(
            [
                row["arm"],
                row["what"],
                f"{over_seeds(row['parameters']).value:,.0f}",
                f"{over_seeds(row['steps']).value:,.0f}",
                with_interval(over_seeds(row["loss"]), 1, 4),
                with_interval(over_seeds(row["accuracy"]), 100),
                "-" if row["arm"] == base else _difference(row["against"]),
            ]
        )
    return rows


def _difference(found: Content) -> str:
    text = f"{found['mean']:+.4f}"
    if found["low"] is None:
        return text
    return f"{text} ({found['low']:+.4f} to {found['high']:+.4f})"


def of_costs(costs: Sequence[Content]) -> Rows:
    """What a model costs before and now."""
    return [
        ["", "before", "now", "now / before"],
        *(
            [c["what"], size(c["before"]), size(c["now"]), f"{c['now'] / c['before']:.2f}"]
            for c in costs
        ),
    ]


def of_capacity(content: Content) -> Rows:
    """Units that each layer has, uses and needs, and the advice."""
    limits = content["limits"]
    head = ["layer", "units", "used on the text", "used in all (Chao1)"]
    head += [f"needed, +{100 * limit:g} %" for limit in limits]
    rows = [[*head, "advised"]]
    for row in content["layers"]:
        cells = [row["layer"], row["d_mlp"], row["used"], round(row["chao1"]), *row["needed"]]
        rows.append([str(c) if i == 0 else f"{c:,}" for i, c in enumerate(cells)])
        rows[-1].append(f"{row['advised']:,}")
    together = [sum(row["needed"][i] for row in content["layers"]) for i in range(len(limits))]
    total = [sum(row[name] for row in content["layers"]) for name in ("d_mlp", "used", "chao1")]
    advised = sum(row["advised"] for row in content["layers"])
    rows.append(["sum", *(f"{round(c):,}" for c in (*total, *together, advised))])
    return rows


def of_savings(content: Content) -> Rows:
    """What a training would need with the widths advised, against what it needed."""
    return [
        ["", "now", "as advised", "ratio"],
        *(
            [c["what"], size(c["now"]), size(c["advised"]), f"{c['advised'] / c['now']:.2f}"]
            for c in content["savings"]
        ),
    ]
