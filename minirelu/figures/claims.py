"""Verdicts on the paper's claims, as a forest: a strip for each, on a scale of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minirelu.figures.panels import Data, write_notes
from minirelu.figures.style import INK, house_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Verdicts differ in colour (Okabe & Ito's), mark and filling.
LOOK: dict[str, dict[str, Any]] = {
    "seen": {"color": "#0072b2", "marker": "o"},
    "not seen": {"color": INK, "marker": "s", "markerfacecolor": "#ffffff"},
    "the opposite": {"color": "#d55e00", "marker": "D"},
    "cannot be said at this size": {"color": "#999999", "marker": "X"},
}
_SEEN_ZONE, _OPPOSITE_ZONE = "#0072b2", "#d55e00"
_APART = 0.16  # inches between the marks of one strip
_AROUND = 0.3  # for the first, with room around it
_TICKS = 0.22  # for the numbers below a strip


def claims(content: dict[str, Any]) -> Data:
    """A strip for each claim that got a number; on it a mark for each group of runs.

    Parameters
    ----------
    content : dict
        what ``minirelu claims`` has found: ``blocks``, each a ``name`` and ``answers``.
    """
    strips: dict[str, Data] = {}
    without = {}
    for block in content["blocks"]:
        for answer in block["answers"]:
            if answer["value"] is None:
                without[answer["name"]] = True
                continue
            strip = strips.setdefault(
                answer["name"],
                {**{k: answer[k] for k in ("name", "unit", "thresholds")}, "marks": []},
            )
            strip["marks"].append(
                {"series": block["name"], "null": answer["null"]["value"]}
                | {k: answer[k] for k in ("value", "low", "high", "seeds", "verdict")}
            )
    most = max((len(strip["marks"]) for strip in strips.values()), default=0)
    several = next(([m["series"] for m in s["marks"]] for s in strips.values()
                    if len(s["marks"]) == most > 1), [])  # fmt: skip
    notes = ["Marks: means over seeds; bars: 95 % intervals; upright ticks: nulls."]
    notes.append("Blue ground: where the claim is seen; red: its opposite.")
    if several:
        notes.append(f"From above: {'; '.join(several)}.")
    if left_out := [name.replace("-", " ") for name in without if name not in strips]:
        notes.append(f"Without a number: {', '.join(left_out)}.")
    return {
        "title": "What the paper claims, asked of these runs",
        "notes": notes,
        "runs": content["runs"],
        "strips": list(strips.values()),
    }


@house_style
def draw_claims(data: Data) -> Figure:
    """Draw what :func:`claims` describes."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.lines import Line2D

    strips = data["strips"]
    heights = [_AROUND + _APART * (len(strip["marks"]) - 1) for strip in strips] or [1]
    height = 1.2 + sum(heights) + _TICKS * len(heights)
    close = ConstrainedLayoutEngine(h_pad=0.01, hspace=0.01)
    figure = Figure(figsize=(9, height), layout=close)
    grid = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axes, strip in zip(grid, strips, strict=False):
        _draw_strip(axes, strip)
    for axes in grid[len(strips) :]:
        axes.set_visible(False)
    handles = [
        Line2D([], [], linestyle="none", markersize=7, label=verdict, **look)
        for verdict, look in LOOK.items()
    ]
    figure.legend(
        handles=handles, loc="outside upper left", ncols=4, frameon=False, alignment="left",
        title=data["title"], title_fontsize=12,
    )  # fmt: skip
    write_notes(figure, data["notes"])
    return figure


def _draw_strip(axes: Axes, strip: Data) -> None:
    """One claim: zones of its thresholds, intervals, marks, nulls."""
    thresholds, marks = strip["thresholds"], strip["marks"]
    low, high = _limits(strip)
    axes.set_xlim(low, high)
    seen, opposite = thresholds["seen"], thresholds["opposite"]
    ends = (high, low) if thresholds["above"] else (low, high)
    for start, end, color in ((seen, ends[0], _SEEN_ZONE), (opposite, ends[1], _OPPOSITE_ZONE)):
        axes.axvspan(min(start, end), max(start, end), color=color, alpha=0.09, linewidth=0)
        axes.axvline(start, color=color, linewidth=0.9, alpha=0.7)
    for i, mark in enumerate(marks):
        look, y = LOOK[mark["verdict"]], -i
        if mark["low"] is not None:
            axes.hlines(y, mark["low"], mark["high"], color=look["color"], linewidth=1.8)
        if mark["null"] is not None:
            axes.plot([mark["null"]], [y], marker="|", markersize=10, mew=2, color=INK)
        axes.plot([mark["value"]], [y], markersize=7, linestyle="none", **look)
    axes.set_ylim(0.3 - len(marks), 0.7)
    axes.set_yticks([])
    axes.grid(False)
    for side in ("left", "top"):
        axes.spines[side].set_visible(False)
    axes.set_ylabel(
        strip["name"].replace("-", " "), rotation=0, ha="right", va="center", fontsize=10
    )
    axes.xaxis.set_major_formatter(lambda x, _: _number(x, strip["unit"]))
    axes.tick_params(axis="x", labelsize=8, pad=1, length=2)
    axes.locator_params(axis="x", nbins=6)


def _limits(strip: Data) -> tuple[float, float]:
    """Room for all numbers, and for both zones."""
    thresholds, numbers = strip["thresholds"], []
    for mark in strip["marks"]:
        numbers += [mark[k] for k in ("value", "low", "high", "null") if mark[k] is not None]
    numbers += [thresholds["seen"], thresholds["opposite"]]
    low, high = min(numbers), max(numbers)
    room = 0.12 * (high - low) or 0.1
    return low - room, high + room


def _number(x: float, unit: str) -> str:
    if unit == "factor":
        return f"{x:.3g}"
    return f"{100 * x:.3g} %" if unit == "share" else f"{100 * x:+.3g}" if x else "0"
