"""Which silent units a search for a text could wake, beside its controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minirelu.death.wake import GROUPS, read_wake, tally
from minirelu.figures.panels import Data, figure_data, line, panel
from minirelu.runs.run import Run

_APART = 0.1  # of dots that stand side by side, in layers


def wake(runs: Sequence[Run]) -> Data:
    """By layer, with 95 % intervals; and by how many texts it took."""
    (run,) = runs
    content, L = read_wake(run), run.config.n_layers
    y = {"label": "share of units woken", "percent": True, "low": 0, "high": 1.02}
    layers, most = content["layers"], content["budget"]["texts"]

    by_layer, by_effort = [], []
    for layer in layers:
        l, units = layer["layer"], layer["units"]["silent"]
        by_layer.append(_dot(l, -2, units, (l, L), "dots 0"))
        by_effort.append(line(*_within(units, most), (l, L), "curve"))
    for i, group in enumerate(("seldom", "reachable", "unreachable"), start=1):
        for layer in layers:
            if units := layer["units"][group]:
                by_layer.append(
                    _dot(layer["layer"], i - 2, units, None, f"dots {i}", GROUPS[group])
                )
        if units := [unit for layer in layers for unit in layer["units"][group]]:
            by_effort.append(line(*_within(units, most), None, f"run {i}", GROUPS[group]))
    at_random = [layer["on_at_random"] / layer["silent"] for layer in layers]
    places = [layer["layer"] + 2 * _APART for layer in layers]
    by_layer.append(line(places, at_random, None, "dots 4", f"{most:,} random texts"))
    ticks = [[l, str(l)] for l in range(L)]

    notes = [
        f"Silent on {content['tokens']:,} held-out tokens; bars are 95 % intervals.",
        f"Of each layer {len(layers[0]['units']['silent'])} silent units at most.",
    ]
    panels = [
        panel(
            by_layer, {"label": "layer", "scale": "linear", "ticks": ticks}, y, "within the budget"
        ),
        panel(by_effort, {"label": "texts tried", "scale": "log"}, y, "within so many texts"),
    ]
    title = f"Silent units that a text can wake, at step {content['step']}"
    return figure_data(title, panels, runs, notes, columns=2)


def _dot(
    l: int, place: int, units: list[dict[str, Any]], layer: Any, look: str, series: str = ""
) -> Data:
    counted = tally(units)
    limits = [counted.low], [counted.high]
    return line([l + place * _APART], [counted.share], layer, look, series, limits)


def _within(units: list[dict[str, Any]], most: int) -> tuple[list[int], list[float]]:
    """Texts tried, and the share of the units that had been woken by then."""
    woken = [unit["tried"] for unit in units if unit["woken"]]
    x = sorted({1, *woken, most})
    return x, [sum(tried <= n for tried in woken) / len(units) for n in x]
