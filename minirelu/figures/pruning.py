"""Figures of pruning, drawn from what the commands ``prune`` and ``capacity`` have found.

Points and lines are means over seeds, bars and shades their 95 % intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minirelu.figures.panels import Data, draw_panels, figure_data, line, panel
from minirelu.figures.style import save
from minirelu.intervals import over_seeds
from minirelu.runs.files import explained

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Content = dict[str, Any]
# The look of each criterion, in every panel.
LOOK = {
    "silent": "run 1", "frequency": "run 4", "contribution": "run 3", "first_order": "run 0",
    "second_order": "run 2", "random": "behind",
}  # fmt: skip
SHADED = ("first_order", "random")  # shades of all could not be told apart
MOST_RISE = 0.12  # of the loss, that panels show


def _over_seeds(values: Sequence[Sequence[float]]) -> tuple[list[float], Any]:
    """Means of columns, and their limits; None for a single seed."""
    columns = [over_seeds(column) for column in zip(*values, strict=True)]
    means = [c.value for c in columns]
    if len(values) < 2:
        return means, None
    return means, ([c.low for c in columns], [c.high for c in columns])


def _curves(content: Content, by: str, scope: str | int, what: str) -> tuple[list[float], Any]:
    """Rise in loss, or change in accuracy, at each share: means and limits, from no share on."""
    of_seeds = []
    for survey in content["surveys"]:
        points = next(c for c in survey["curves"] if (c["by"], c["scope"]) == (by, scope))["points"]
        whole = survey[what]
        of_seeds.append(
            [0.0, *((p[what] - whole) / (whole if what == "loss" else 1) for p in points)]
        )
    return _over_seeds(of_seeds)


def prune(content: Content) -> Data:
    """Loss and accuracy against the share removed, by criterion and by layer."""
    first = content["surveys"][0]["curves"]
    criteria = list(dict.fromkeys(c["by"] for c in first))
    scopes = list(dict.fromkeys(c["scope"] for c in first))
    shares = [0.0, *(p["share"] for p in first[0]["points"])]
    layers = [s for s in scopes if isinstance(s, int)]
    L = content["settings"]["model"]["n_layers"]
    x = {"label": "share of units removed", "scale": "linear",
         "ticks": [[s, f"{100 * s:g} %"] for s in (0, 0.25, 0.5, 0.75, 1)]}  # fmt: skip
    rise = {"label": "rise in loss", "percent": True, "low": -0.005, "high": MOST_RISE, "cut": True}

    def by_criterion(scope: str | int, title: str) -> Data:
        lines = []
        for by in criteria:
            y, limits = _curves(content, by, scope, "loss")
            limits = limits if by in SHADED else None
            lines.append(line(shares, y, None, LOOK.get(by, "thin"), by, limits))
        return panel(lines, x, rise, title)

    panels = []
    if "global" in scopes:
        panels.append(by_criterion("global", "all layers together"))
    if "each" in scopes:
        panels.append(by_criterion("each", "the same share of each layer"))
    for l in sorted({layers[0], layers[-1]} if layers else ()):
        panels.append(by_criterion(l, f"layer {l} alone"))
    best = "first_order" if "first_order" in criteria else criteria[0]
    lines = []
    for l in layers:
        y, limits = _curves(content, best, l, "loss")
        lines.append(line(shares, y, (l, L), "curve", "", limits))
    if lines:
        panels.append(panel(lines, x, rise, f"each layer alone, by {best}"))
    if "global" in scopes:
        lines = []
        for by in criteria:
            y, limits = _curves(content, by, "global", "accuracy")
            limits = limits if by in SHADED else None
            lines.append(line(shares, y, None, LOOK.get(by, "thin"), by, limits))
        fall = {
            "label": "change in accuracy, points",
            "percent": True,
            "low": -0.1,
            "high": 0.01,
            "cut": True,
        }
        panels.append(panel(lines, x, fall, "next-token accuracy, all together"))
    n = len(content["surveys"])
    notes = [
        f"Means of {n} seeds; shades, of {' and '.join(SHADED)}, are 95 % intervals."
        if n > 1
        else "One seed.",
        f"Measured on {content['tokens']:,} held-out tokens; loss rises beyond "
        f"{100 * MOST_RISE:.0f} % are cut off.",
    ]
    data = figure_data("What removing hidden units costs", panels, [], notes, 2, False)
    return data | {"runs": content["runs"]}


def trial(content: Content) -> Data:
    """Loss at the end of each arm of a trial, against their first one, seed by seed and mean."""
    rows = content["arms"]
    x = {"label": "", "scale": "linear", "low": -0.5, "high": len(rows) - 0.5,
         "ticks": [[i, row["arm"].replace(" ", "\n")] for i, row in enumerate(rows)]}  # fmt: skip
    losses, against = [], []
    for i, row in enumerate(rows):
        mean, limits = _over_seeds([[v] for v in row["loss"]])
        n = len(row["loss"])
        losses += [
            line([i - 0.15] * n, row["loss"], None, "each seed", "each seed"),
            line([i], mean, None, f"arm {i}", "", limits),
        ]
        difference = row["against"]
        if row["arm"] != difference["base"]:
            of_seeds = [a - b for a, b in zip(row["loss"], _of(rows, difference), strict=True)]
            limits = None if difference["low"] is None else (
                [difference["low"]], [difference["high"]]
            )  # fmt: skip
            against += [
                line([i - 0.15] * n, of_seeds, None, "each seed", "each seed"),
                line([i], [difference["mean"]], None, f"arm {i}", "", limits),
            ]
    base = rows[0]["against"]["base"]
    against.append(line([-0.5, len(rows) - 0.5], [0, 0], None, "mark 0", base))
    panels = [
        panel(losses, x, {"label": "loss, nats per token"}, "loss"),
        panel(against, x, {"label": "difference in loss"}, f"against {base}, same seed"),
    ]
    notes = [
        f"{len(rows[0]['loss'])} seeds; means with 95 % intervals, on {content['tokens']:,} "
        "held-out tokens."
    ]
    data = figure_data(content["title"], panels, [], notes, 2, False)
    return data | {"runs": content["runs"]}


def _of(rows: Sequence[Content], difference: Content) -> list[float]:
    return next(row["loss"] for row in rows if row["arm"] == difference["base"])


def capacity(content: Content) -> Data:
    """Units that each layer has, uses and needs."""
    rows, L = content["layers"], len(content["layers"])
    x = {"label": "layer", "scale": "linear", "low": -0.5, "high": L - 0.5,
         "ticks": [[l, str(l)] for l in range(L)]}  # fmt: skip
    shown = [
        ("units in the layer", "dots 1", [row["d_mlp"] for row in rows]),
        ("used on the text", "dots 0", [row["used"] for row in rows]),
        *(
            (f"needed for a rise of {100 * limit:g} %, layer alone", f"dots {2 + i}",
             [row["needed"][i] for row in rows])
            for i, limit in enumerate(content["limits"])
        ),
        ("advised", "points", [row["advised"] for row in rows]),
    ]  # fmt: skip
    lines = [
        line([l + 0.1 * (i - 2.5) for l in range(L)], y, None, look, name)
        for i, (name, look, y) in enumerate(shown)
    ]
    y = {"label": "hidden units", "low": 0}
    title = f"How many units layers need, within {100 * content['within']:g} % of the loss"
    notes = [f"Measured on {content['tokens']:,} held-out tokens."]
    return figure_data(title, [panel(lines, x, y)], [], notes, 1, False) | {"runs": content["runs"]}


def save_drawn(data: Data, target: Path, draw: Callable[[Data], Figure] | None = None) -> Path:
    """Draw as .png and .svg; return the first."""
    with explained("writing the figure"):
        target.parent.mkdir(parents=True, exist_ok=True)
        return save((draw or draw_panels)(data), target)
