"""The house style: one look, and the same colour for the same layer in every figure."""

from __future__ import annotations

import functools
import io
import textwrap
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minirelu.errors import one_line
from minirelu.runs.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE: Any = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.spines.right": False,
    "axes.edgecolor": "#777777",
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "legend.fontsize": 10,
    "savefig.dpi": 150,
    "svg.hashsalt": "minirelu",
    "text.parse_math": False,  # a dollar in the name of a run is a dollar
}
INK = "#333333"
# Runs, where lines belong to no layer: Okabe & Ito's colours, those that are far from viridis first
RUN_COLORS = ("#d55e00", INK, "#cc79a7", "#e69f00", "#56b4e9")
MARKS = "osD^vP*"
# How lines are drawn, by what they are; the colour is the layer's. Runs differ in dashes and marks.
LOOKS: dict[str, dict[str, Any]] = {
    **{
        f"run {i}": {"linestyle": dashes, "marker": mark}
        for i, (dashes, mark) in enumerate(
            [("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"), ((0, (5, 1, 1, 1, 1, 1)), "v")]
        )
    },
    **{f"dots {i}": {"linestyle": "none", "marker": mark} for i, mark in enumerate("os^Dv")},
    "curve": {"linestyle": "-"},
    "points": {"linestyle": "none", "marker": "o"},
    "hollow": {"linestyle": "none", "marker": "o", "markerfacecolor": "#ffffff"},
    "each seed": {"linestyle": "none", "marker": "o", "markersize": 3, "alpha": 0.45},
    **{  # what is compared within one figure, such as the arms of a study
        f"arm {i}": {
            "linestyle": "none",
            "marker": MARKS[i // len(RUN_COLORS)],
            "markersize": 7,
            "color": RUN_COLORS[i % len(RUN_COLORS)],
        }
        for i in range(len(RUN_COLORS) * len(MARKS))
    },
    "null": {"linestyle": "--", "linewidth": 1.4},
    "second null": {"linestyle": ":", "linewidth": 1.6},
    "thin": {"linestyle": "-", "linewidth": 0.9},
    "thin dotted": {"linestyle": ":", "linewidth": 1.1},
    "behind": {"linestyle": "-", "linewidth": 1, "color": "#b3b3b3"},
    "mark 0": {"linestyle": ":", "linewidth": 1.2, "color": INK},
    "mark 1": {"linestyle": "-.", "linewidth": 1.2, "color": INK},
    "mark 2": {"linestyle": "--", "linewidth": 1.2, "color": INK},
    "steps": {"drawstyle": "steps-post", "linewidth": 1.2},
    "silent": {"drawstyle": "steps-post", "linewidth": 1.2, "color": "#888888"},
}
MOST_RUNS = len(RUN_COLORS)


def layer_colors(n_layers: int) -> list[Any]:
    """Colours from the first layer to the last: viridis, dark to light, without its palest end.

    Viridis rises evenly in lightness, so that the order of layers can be told with any colour
    vision, and in grey.

    >>> len(layer_colors(6))
    6
    """
    import matplotlib as mpl

    viridis = mpl.colormaps["viridis"]
    return [viridis(0.9 * l / max(1, n_layers - 1)) for l in range(n_layers)]


def color_of(look: str, layer: Sequence[int] | None) -> Any:
    """Colour of a line: its layer's (l, L); without one its own, or its run's.

    >>> color_of("run 0", None), color_of("mark 1", None)
    ('#d55e00', '#333333')
    """
    if layer:
        return layer_colors(layer[1])[layer[0]]
    run = RUN_COLORS[int(look.split()[1])] if look.startswith(("run ", "dots ")) else INK
    return LOOKS[look].get("color", run)


def layer_labels(n_layers: int) -> list[str]:
    """Names for the legend.

    >>> layer_labels(3)
    ['layer 0 (first)', 'layer 1', 'layer 2 (last)']
    """
    ends = {0: " (first)", n_layers - 1: " (last)"} if n_layers > 1 else {}
    return [f"layer {l}{ends.get(l, '')}" for l in range(n_layers)]


def house_style(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Let a figure function draw with :data:`STYLE`, leaving matplotlib's settings as they were."""

    @functools.wraps(draw)
    def styled(*arguments: Any, **settings: Any) -> Figure:
        import matplotlib as mpl

        with mpl.rc_context(STYLE):
            return draw(*arguments, **settings)

    return styled


def new_figure(title: str) -> tuple[Figure, Axes]:
    """One empty panel, without pyplot and so without a display."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    return figure, figure.add_subplot(title=title)


def step_axis(
    axes: Axes,
    x: dict[str, Any],
    last: float,
    tokens_above: bool = True,
    narrow: bool = False,
) -> None:
    """Training steps below, tokens above.

    Parameters
    ----------
    axes : Axes
    x : dict
        ``scale``: "steps" (logarithmic from the first on, with room for 0) or "even steps";
        ``first``: where the logarithm begins; ``tokens_per_step``, or None for no second axis.
    last : float
    tokens_above : bool
        whether this panel has the second axis.
    narrow : bool
        there is room for few numbers.
    """
    log, first = x["scale"] == "steps", x.get("first", 1)
    each = x.get("tokens_per_step") if tokens_above else None
    apart = 16 if narrow else 4
    ticks = [0, *(first * apart**i for i in range(16) if first * apart**i <= last)]
    if last > apart / 2 * ticks[-1]:
        ticks.append(last)
    if log:
        axes.set_xscale("symlog", linthresh=first, linscale=0.5)
        axes.set_xticks(ticks, [short(t) if first > 1 else str(t) for t in ticks])
        axes.minorticks_off()
    axes.set_xlim(0, last * (1.05 if log else 1.01))
    if not each:
        return
    top = axes.secondary_xaxis("top", functions=(lambda s: s * each, lambda t: t / each))
    if log:
        top.set_xscale("symlog", linthresh=each, linscale=0.5)
        top.set_xticks([t * each for t in ticks], [short(t * each) for t in ticks])
        top.minorticks_off()
    else:
        top.xaxis.set_major_formatter(lambda tokens, _: short(tokens))
    top.set_xlabel("training tokens", fontsize=9)
    top.tick_params(labelsize=8)


def short(n: float) -> str:
    """A number in two digits or so.

    >>> short(1234567), short(20480), short(256)
    ('1.2M', '20k', '256')
    """
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= size:
            return f"{n / size:.2g}{unit}" if n < 10 * size else f"{n / size:.0f}{unit}"
    return f"{n:.0f}"


@house_style
def not_drawn(why: str) -> Figure:
    """A sentence in place of a figure."""
    from matplotlib.figure import Figure

    lines = textwrap.wrap(one_line(why), 90)
    figure = Figure(figsize=(7.2, 0.3 + 0.22 * len(lines)))
    figure.text(0.01, 0.5, "\n".join(lines), va="center", fontsize=10, color=INK)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write ``path.png`` and ``path.svg``; return the first."""
    import matplotlib as mpl
    from PIL import Image  # which matplotlib needs for PNG itself

    png, svg = (path.with_name(f"{path.name}.{kind}") for kind in ("png", "svg"))
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name in a script that the font lacks
        with replacing(svg) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})
        figure.set_layout_engine("none")  # it has been laid out
        whole = io.BytesIO()
        figure.savefig(whole, format="png")
    # 256 colours are enough for lines, and a third of the size
    with Image.open(whole) as picture, replacing(png) as temporary:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(temporary, format="png")
    return png
