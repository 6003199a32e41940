"""Figures made of lines: what is drawn is a dict of plain values, so the data can be written too.

A figure's data is ``{"title", "notes", "runs", "columns", "panels"}``. Each panel has axes ``x``
and ``y`` and its ``lines``; each line its ``x`` and ``y``, as drawn. What is drawn has no other
source, so the JSON of a figure and its lines are the same numbers.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from minirelu.figures.runs import facts
from minirelu.figures.style import (
    INK,
    LOOKS,
    color_of,
    house_style,
    layer_colors,
    layer_labels,
    short,
    step_axis,
)
from minirelu.sparsity.measures import what_on_means

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend

    from minirelu.runs.run import Run

Data = dict[str, Any]


def line(
    x: Sequence[float],
    y: Sequence[float | None],
    layer: tuple[int, int] | None = None,
    look: str = "run 0",
    series: str = "",
    band: tuple[Sequence[float | None], Sequence[float | None]] | None = None,
    across: tuple[Sequence[float | None], Sequence[float | None]] | None = None,
) -> Data:
    """Describe one line, or points.

    Parameters
    ----------
    x, y : sequence
        None or NaN in ``y`` leaves a gap.
    layer : (l, L), optional
        gives the colour.
    look : str
        a key of :data:`minirelu.figures.style.LOOKS`.
    series : str
        what the look stands for, in the legend.
    band : (low, high), optional
        limits of ``y``: shaded, or bars at points.
    across : (low, high), optional
        limits of ``x``: bars at points.
    """
    low, high = band if band else (None, None)
    more = {"left": _plain(across[0]), "right": _plain(across[1])} if across else {}
    return {
        "series": series,
        "look": look,
        "layer": list(layer) if layer else None,
        "x": list(x),
        "y": _plain(y),
        "low": _plain(low) if low else None,
        "high": _plain(high) if high else None,
        **more,
    }


def _plain(values: Sequence[float | None]) -> list[float | None]:
    """NaN, which JSON lacks, as None."""
    return [None if v is None or math.isnan(v) else v for v in values]


def panel(lines: list[Data], x: Data, y: Data, title: str = "", layer: Any = None) -> Data:
    """Describe one panel.

    Parameters
    ----------
    lines : list
    x : dict
        ``label``, ``scale`` ("steps", "even steps", "log" or "linear"), and if they are wanted
        ``tokens_per_step`` (for a second axis), ``ticks`` (list of [number, text]), ``low``,
        ``high``.
    y : dict
        ``label``, and if they are wanted ``percent`` (lines are shares), ``factor`` (of the
        numbers on the axis, as the label says), ``scale`` ("log"), ``ticks``, ``low``, ``high``,
        ``cut`` (lines go beyond these).
    title : str
    layer : (l, L), optional
        of a panel that shows one layer only, as its title says.
    """
    if layer:
        title = layer_labels(layer[1])[layer[0]]
    return {"title": title, "layer": layer and list(layer), "x": x, "y": y, "lines": lines}


def figure_data(
    title: str,
    panels: list[Data],
    runs: Sequence[Run],
    notes: Sequence[str] = (),
    columns: int = 1,
    of_units: bool = True,
) -> Data:
    """Put a figure's data together, with the facts of its runs.

    Where it is ``of_units``, its notes say what "on" means, if that is not exactly non-zero.
    """
    on_means = dict.fromkeys(what_on_means(run.config) for run in runs) if of_units else ()
    return {
        "title": title,
        "notes": [*notes, *filter(None, on_means)],
        "runs": [facts(run) for run in runs],
        "columns": columns,
        "panels": panels,
    }


@house_style
def draw_panels(data: Data) -> Figure:
    """Draw what :func:`figure_data` describes."""
    from matplotlib.figure import Figure

    panels, columns = data["panels"], data["columns"]
    rows = -(-len(panels) // columns)
    height = 4.2 if len(panels) == 1 else 1.4 + 2.4 * rows
    figure = Figure(figsize=(7.2 if columns == 1 else 9.0, height), layout="constrained")
    alike = columns > 1 and all(p["y"] == panels[0]["y"] for p in panels)
    grid = list(figure.subplots(rows, columns, squeeze=False, sharey=alike).flat)
    for axes, what in zip(grid, panels, strict=False):
        for each in what["lines"]:
            _draw_line(axes, each, cut=what["y"].get("cut", False))
    for i, (axes, what) in enumerate(zip(grid, panels, strict=False)):
        _y_axis(axes, what["y"])
        below = panels[i + columns]["x"] if i + columns < len(panels) else None
        _x_axis(axes, what, i < columns, below != what["x"], narrow=columns > 2)
        axes.set_title(data["title"] if len(panels) == 1 else what["title"], color=INK)
        if alike:
            axes.set_ylabel("")
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    if len(panels) > 1:
        figure.suptitle(data["title"], x=0.01, ha="left", fontsize=12)
    if alike:
        figure.supylabel(panels[0]["y"]["label"], fontsize=11)
    legend = _legend(figure, panels, below=columns > 1)
    if legend and columns > 1:  # both are at the foot: as one, they do not overlap
        legend.set_title(_wrapped(data["notes"]))
        legend.get_title().set_fontsize(9)
    else:
        write_notes(figure, data["notes"])
    return figure


def write_notes(figure: Figure, notes: list[str]) -> None:
    """Write remarks at the foot of a figure."""
    if notes:
        figure.supxlabel(_wrapped(notes), x=0.01, ha="left", fontsize=9, color=INK)


def _wrapped(notes: list[str]) -> str:
    return "\n".join(textwrap.wrap(" ".join(notes), 100))


def _draw_line(axes: Axes, each: Data, cut: bool) -> None:
    look = dict(LOOKS[each["look"]])
    is_histogram = "drawstyle" in look
    look["color"] = color = color_of(each["look"], each["layer"])
    y = _numbers(each["y"])
    axes.plot(each["x"], y, clip_on=cut or "marker" not in look, **look)
    if look.get("linestyle") == "none":
        bars = {"color": color, "linewidth": 1.2, "alpha": look.get("alpha", 0.7)}
        if each["low"]:
            axes.vlines(each["x"], _numbers(each["low"]), _numbers(each["high"]), **bars)
        if "left" in each:
            axes.hlines(y, _numbers(each["left"]), _numbers(each["right"]), **bars)
    elif each["low"]:
        axes.fill_between(
            each["x"], _numbers(each["low"]), _numbers(each["high"]),
            color=color, alpha=0.18, linewidth=0,
        )  # fmt: skip
    if is_histogram:
        axes.fill_between(each["x"], y, step="post", color=color, alpha=0.35, linewidth=0)


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [math.nan if v is None else v for v in values]


def _y_axis(axes: Axes, y: Data) -> None:
    axes.set_ylabel(y["label"])
    if y.get("scale") == "log":
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda n, _: short(n))
        axes.yaxis.set_minor_formatter("")
    if y.get("percent"):
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g} %")
    elif y.get("factor"):
        axes.yaxis.set_major_formatter(lambda value, _: f"{value * y['factor']:.3g}")
    if y.get("ticks"):
        axes.set_yticks(*zip(*y["ticks"], strict=True))
        axes.minorticks_off()
    if "low" in y:
        axes.set_ylim(y["low"], y.get("high"))


def _x_axis(axes: Axes, what: Data, top: bool, bottom: bool, narrow: bool) -> None:
    """Scale and limits; names below the lowest panel of those alike, tokens above the highest."""
    x = what["x"]
    everywhere = [v for each in what["lines"] for v in each["x"]]
    if x["scale"] in ("steps", "even steps"):
        last = max(1, *everywhere)
        step_axis(axes, x, last, tokens_above=top, narrow=narrow)
    elif x["scale"] == "log":
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda n, _: short(n))
        axes.xaxis.set_minor_formatter("")
    if x.get("ticks"):
        axes.set_xticks(*zip(*x["ticks"], strict=True))
        axes.minorticks_off()
        if any(len(text) > 6 for _, text in x["ticks"]):
            axes.tick_params(axis="x", labelsize=9)
    if "low" in x:
        axes.set_xlim(x["low"], x.get("high"))
    axes.set_xlabel(x["label"] if bottom else "")
    axes.tick_params(labelbottom=bottom)


def _legend(figure: Figure, panels: list[Data], below: bool) -> Legend | None:
    """Colours stand for layers, looks for series; each is named once."""
    from matplotlib.lines import Line2D

    lines = [each for p in panels for each in p["lines"]]
    layers = [each["layer"] for p in panels if not p["layer"] for each in p["lines"]]
    deepest = max((layer[1] for layer in layers if layer), default=0)
    entries = [
        Line2D([], [], color=color, marker="o", label=label)
        for color, label in zip(layer_colors(deepest), layer_labels(deepest), strict=True)
    ]
    series = {each["series"]: each for each in lines if each["series"]}
    for name, each in series.items():
        color = INK if each["layer"] else color_of(each["look"], None)
        entries.append(Line2D([], [], **{**LOOKS[each["look"]], "color": color}, label=name))
    if entries:
        longest = max(len(str(entry.get_label())) for entry in entries)
        columns = min(len(entries), 4 if longest < 24 else 2) if below else 1
        where: Any = "outside lower center" if below else "outside right center"
        return figure.legend(handles=entries, loc=where, frameon=False, ncols=columns)
    return None
